// Words of the console: English texts are their own names, Chinese ones are in locale/zh.ts.
import { createContext, useContext, useEffect, useState, type ReactNode } from 'react';

export type Language = 'en' | 'zh';
type Values = Record<string, string | number>;

interface Words {
  language: Language;
  setLanguage: (language: Language) => void;
  t: (text: string, values?: Values) => string;
}

const KEPT = 'backtide.language';
const Context = createContext<Words | undefined>(undefined);

function preferred(): Language {
  const kept = localStorage.getItem(KEPT);
  if (kept === 'en' || kept === 'zh') return kept;
  return navigator.language.toLowerCase().startsWith('zh') ? 'zh' : 'en';
}

export function WordsProvider({ children }: { children: ReactNode }) {
  const [language, setLanguage] = useState(preferred);
  const [zh, setZh] = useState<Record<string, string>>();
  useEffect(() => {
    localStorage.setItem(KEPT, language);
    document.documentElement.lang = language === 'zh' ? 'zh-CN' : 'en';
    if (language === 'zh' && !zh) void import('./locale/zh').then((module) => setZh(module.zh));
  }, [language, zh]);
  if (language === 'zh' && !zh) return null;
  const t = (text: string, values?: Values) => {
    const told = (language === 'zh' ? zh?.[text] : undefined) ?? text;
    if (!values) return told;
    // "1 message", not "1 messages"; but "1 of 1 messages".
    const counted = language === 'en' ? told.replace(/(?<!of |version )\{(\w+)\} ((?:dead )?\w+?)s\b/g, (whole, name: string, word: string) => (String(values[name]) === '1' ? `{${name}} ${word}` : whole)) : told;
    return counted.replace(/\{(\w+)\}/g, (whole, name: string) => String(values[name] ?? whole));
  };
  return <Context value={{ language, setLanguage, t }}>{children}</Context>;
}

export function useWords(): Words {
  const words = useContext(Context);
  if (!words) throw new Error('outside of WordsProvider');
  return words;
}
