// The code editor: JavaScript with the names that scripts have, JSON, YAML, SQL. Loaded when one is seen.
import { autocompletion, closeCompletion, completeAnyWord, type CompletionContext } from '@codemirror/autocomplete';
import { defaultKeymap, history, historyKeymap } from '@codemirror/commands';
import { javascript, javascriptLanguage } from '@codemirror/lang-javascript';
import { json } from '@codemirror/lang-json';
import { PostgreSQL, sql, type SQLNamespace } from '@codemirror/lang-sql';
import { yaml } from '@codemirror/lang-yaml';
import { bracketMatching, foldGutter, foldKeymap, indentOnInput, syntaxHighlighting, HighlightStyle } from '@codemirror/language';
import { lintGutter, setDiagnostics } from '@codemirror/lint';
import { highlightSelectionMatches, searchKeymap } from '@codemirror/search';
import { Compartment, EditorState, Prec } from '@codemirror/state';
import { EditorView, drawSelection, highlightActiveLine, keymap, lineNumbers } from '@codemirror/view';
import { useComputedColorScheme } from '@mantine/core';
import { tags } from '@lezer/highlight';
import { useEffect, useRef } from 'react';
import { useWords } from '../i18n';

/** What a script finds besides the language itself (docs/scripts.md). */
const GLOBALS = [
  { label: 'rawDataToJsonStr', type: 'function', detail: '(bytes) → text', info: 'Decodes a message: returns the JSON text of an envelope' },
  { label: 'jsonStrToRawData', type: 'function', detail: '(text) → bytes', info: 'Encodes a reply: gets JSON text, returns bytes' },
  { label: 'rawDataToProtocol', type: 'function', detail: '(bytes) → object', info: 'Decodes a message: returns an envelope as an object' },
  { label: 'protocolToRawData', type: 'function', detail: '(object) → bytes' },
  { label: 'decodeUplink', type: 'function', detail: '({bytes, fPort, recvTime, variables}) → {data}' },
  { label: 'encodeDownlink', type: 'function', detail: '({data, fPort}) → {bytes}' },
  { label: 'Decoder', type: 'function', detail: '(bytes, port) → values' },
  { label: 'Decode', type: 'function', detail: '(fPort, bytes, variables) → values' },
  { label: 'Buffer', type: 'class', detail: 'bytes, as in Node.js' },
  { label: 'DataView', type: 'class' },
  { label: 'console', type: 'variable', detail: 'its output is shown by a test run' },
  { label: 'atob', type: 'function' },
  { label: 'btoa', type: 'function' },
  { label: 'module', type: 'variable' },
  { label: 'exports', type: 'variable' },
  { label: 'Date', type: 'class', detail: 'stands at the time of receipt, UTC' },
  { label: 'integration.measurepoint.post', type: 'text' },
  { label: 'integration.event.post', type: 'text' },
  { label: 'integration.attribute.post', type: 'text' },
];

function ours(context: CompletionContext) {
  const word = context.matchBefore(/[\w.]*/);
  if (!word || (word.from === word.to && !context.explicit)) return null;
  return { from: word.from, options: GLOBALS, validFor: /^[\w.]*$/ };
}

const light = HighlightStyle.define([
  { tag: tags.keyword, color: '#6f1f9c' },
  { tag: [tags.string, tags.special(tags.string), tags.regexp], color: '#9c1a1a' },
  { tag: [tags.number, tags.bool, tags.null, tags.atom], color: '#0b4f8a' },
  { tag: tags.comment, color: '#5c636a', fontStyle: 'italic' },
  { tag: [tags.propertyName, tags.definition(tags.propertyName), tags.definition(tags.variableName)], color: '#0a3d91' },
  { tag: [tags.function(tags.variableName), tags.typeName, tags.className], color: '#00574b' },
]);
const dark = HighlightStyle.define([
  { tag: tags.keyword, color: '#ff9ed2' },
  { tag: [tags.string, tags.special(tags.string)], color: '#a5d6a7' },
  { tag: [tags.number, tags.bool, tags.null], color: '#ffcc80' },
  { tag: tags.comment, color: '#aab4be', fontStyle: 'italic' },
  { tag: [tags.propertyName, tags.definition(tags.propertyName)], color: '#90caf9' },
  { tag: [tags.function(tags.variableName), tags.typeName, tags.className], color: '#82d8ff' },
]);

const LANGUAGES = {
  sql: (schema: SQLNamespace) => [sql({ dialect: PostgreSQL, schema, upperCaseKeywords: true })],
  javascript: () => [javascript(), javascriptLanguage.data.of({ autocomplete: ours }), javascriptLanguage.data.of({ autocomplete: completeAnyWord })],
  json: () => [json()],
  yaml: () => [yaml()],
};

const NO_NAMES = {};

/** `onRun` is told of Ctrl Enter; `schema` are names to complete; `insert` is put at the cursor when it is another. */
export default function Editor({ language, label, value, onChange, readOnly = false, mark, onRun, schema = NO_NAMES, insert }: {
  language: keyof typeof LANGUAGES; label: string; value: string; onChange?: (value: string) => void; readOnly?: boolean; mark?: { line: number; column?: number; message: string } | undefined;
  onRun?: () => void; schema?: Record<string, string[]>; insert?: { text: string } | undefined;
}) {
  const { t } = useWords();
  const scheme = useComputedColorScheme('light');
  const parent = useRef<HTMLDivElement>(null);
  const view = useRef<EditorView>(undefined);
  const colours = useRef(new Compartment());
  const locked = useRef(new Compartment());
  const spoken = useRef(new Compartment());
  const run = useRef(onRun);
  run.current = onRun;
  const changed = useRef(onChange);
  changed.current = onChange;
  const style = (scheme: string) => [
    syntaxHighlighting(scheme === 'dark' ? dark : light),
    EditorView.theme({ '&': { fontSize: '13px' }, '.cm-content': { minHeight: '8rem' } }, { dark: scheme === 'dark' }),
    EditorView.theme({
      '.cm-gutters': { background: 'transparent', color: scheme === 'dark' ? '#aab4be' : '#5c636a', border: 'none' },
      '.cm-activeLine': { background: scheme === 'dark' ? '#ffffff10' : '#0000000a' },
    }),
  ];
  useEffect(() => {
    const made = new EditorView({
      parent: parent.current ?? undefined,
      state: EditorState.create({
        doc: value,
        extensions: [
          lineNumbers(), foldGutter(), history(), drawSelection(), indentOnInput(), bracketMatching(), highlightActiveLine(), highlightSelectionMatches(), lintGutter(),
          autocompletion(),
          // Tab leaves the editor: nobody is trapped.
          keymap.of([...defaultKeymap, ...historyKeymap, ...searchKeymap, ...foldKeymap]),
          Prec.highest(keymap.of([{ key: 'Mod-Enter', run: (view) => { closeCompletion(view); run.current?.(); return run.current !== undefined; } }])),
          spoken.current.of(LANGUAGES[language](schema)),
          colours.current.of(style(scheme)),
          locked.current.of([]),
          EditorView.lineWrapping,
          EditorView.contentAttributes.of({ 'aria-label': label }),
          EditorView.updateListener.of((update) => {
            if (update.docChanged) changed.current?.(update.state.doc.toString());
          }),
        ],
      }),
    } as ConstructorParameters<typeof EditorView>[0]);
    view.current = made;
    return () => made.destroy();
    // Made once: what changes later is told to it below.
    // eslint-disable-next-line react-hooks/exhaustive-deps
  }, [language, label]);
  useEffect(() => {
    view.current?.dispatch({ effects: colours.current.reconfigure(style(scheme)) });
  }, [scheme, language, label]);
  useEffect(() => {
    view.current?.dispatch({ effects: locked.current.reconfigure(readOnly ? [EditorState.readOnly.of(true), EditorView.editable.of(false), EditorView.contentAttributes.of({ tabindex: '0' })] : []) });
  }, [readOnly, language, label]);
  useEffect(() => {
    view.current?.dispatch({ effects: spoken.current.reconfigure(LANGUAGES[language](schema)) });
  }, [language, schema]);
  useEffect(() => {
    const own = view.current;
    if (!own || !insert) return;
    own.dispatch(own.state.replaceSelection(insert.text));
    own.focus();
  }, [insert]);
  useEffect(() => {
    const own = view.current;
    if (own && own.state.doc.toString() !== value) own.dispatch({ changes: { from: 0, to: own.state.doc.length, insert: value } });
  }, [value]);
  useEffect(() => {
    const own = view.current;
    if (!own) return;
    if (!mark || mark.line > own.state.doc.lines) {
      own.dispatch(setDiagnostics(own.state, []));
      return;
    }
    const line = own.state.doc.line(Math.max(1, mark.line));
    const from = Math.min(line.to, line.from + Math.max(0, (mark.column ?? 1) - 1));
    own.dispatch(setDiagnostics(own.state, [{ from, to: line.to, severity: 'error', message: mark.message }]));
  }, [mark]);
  return <div className="editor" ref={parent} data-testid="editor" title={readOnly ? t('read only') : undefined} />;
}
