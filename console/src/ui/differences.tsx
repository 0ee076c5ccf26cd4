// Two texts side by side.
import { javascript } from '@codemirror/lang-javascript';
import { MergeView } from '@codemirror/merge';
import { EditorState } from '@codemirror/state';
import { EditorView, lineNumbers } from '@codemirror/view';
import { Text, useComputedColorScheme } from '@mantine/core';
import { useEffect, useRef } from 'react';

export default function Differences({ label, from, to }: { label: string; from: string; to: string }) {
  const parent = useRef<HTMLDivElement>(null);
  const scheme = useComputedColorScheme('light');
  useEffect(() => {
    if (!parent.current) return;
    const extensions = (side: string) => [
      lineNumbers(), javascript(), EditorState.readOnly.of(true), EditorView.editable.of(false), EditorView.lineWrapping,
      EditorView.contentAttributes.of({ 'aria-label': `${label}, ${side}`, tabindex: '0' }),
      EditorView.theme({ '.cm-gutters': { background: 'transparent', color: scheme === 'dark' ? '#aab4be' : '#5c636a', border: 'none' } }, { dark: scheme === 'dark' }),
    ];
    const view = new MergeView({ parent: parent.current, a: { doc: from, extensions: extensions('1') }, b: { doc: to, extensions: extensions('2') }, collapseUnchanged: { margin: 3, minSize: 6 } });
    return () => view.destroy();
  }, [from, to, label, scheme]);
  return <section aria-label={label}><Text size="sm" fw={600} mb={4}>{label}</Text><div className="editor" ref={parent} data-testid="differences" /></section>;
}
