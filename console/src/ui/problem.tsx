import { Alert, List, Text } from '@mantine/core';
import { notifications } from '@mantine/notifications';
import { Problem } from '../api/client';
import { useWords } from '../i18n';

/** A refusal: its code, its cause, its fix. */
export function ProblemAlert({ error, title }: { error: unknown; title?: string }) {
  const { t } = useWords();
  if (!error) return null;
  const problem = Problem.from(error);
  return (
    <Alert color="red" variant="light" role="alert" title={title ?? t('That did not work')} data-testid="problem">
      <Text size="sm">
        <code>{problem.code}</code> {problem.detail}
        {problem.place ? ` (${problem.place})` : ''}
        {problem.line ? ` · ${t('line {line}, column {column}', { line: problem.line, column: problem.column ?? 1 })}` : ''}
      </Text>
      {problem.errors.length > 0 && (
        <List size="sm" mt="xs">
          {problem.errors.slice(0, 20).map((error, at) => (
            <List.Item key={at}>
              {t('line {line}', { line: error.line })}{error.object ? `, ${error.object}` : ''}: {error.message}
            </List.Item>
          ))}
        </List>
      )}
      {problem.usedBy.length > 0 && (
        <Text size="sm" mt="xs">{problem.usedBy.slice(0, 10).map((user) => `${user.kind} ${user.name}`).join(', ')}</Text>
      )}
      {problem.fix && <Text size="sm" mt="xs"><b>{t('What to do')}:</b> {problem.fix}</Text>}
    </Alert>
  );
}

/** Notices stand outside of what knows the language; the page says which it is. */
const close = () => ({ 'aria-label': document.documentElement.lang === 'en' ? 'Close' : '关闭' });

/** Tells of what was done, or why not, where no place on the screen is nearer. */
export function tell(message: string) {
  notifications.show({ message, color: 'teal', autoClose: 4000, closeButtonProps: close() });
}

export function tellProblem(error: unknown) {
  const problem = Problem.from(error);
  notifications.show({
    color: 'red',
    autoClose: false,
    closeButtonProps: close(),
    title: problem.code,
    message: problem.fix ? `${problem.detail} — ${problem.fix}` : problem.detail,
  });
}

export function Code({ code }: { code: number | undefined }) {
  const { t } = useWords();
  if (code === undefined) return null;
  const words: Record<number, string> = {
    200: t('stored'),
    1008: t('message too large'),
    1009: t('no permission to publish'),
    1202: t('failed to decode'),
    1204: t('model validation failed'),
    1220: t('payload format error'),
    1250: t('unknown method'),
    1251: t('payload is empty'),
    1257: t('device not found'),
    1260: t('method does not fit the topic'),
    1274: t('over the quota'),
  };
  const color = code === 200 ? 'light-dark(#2b6a30, #8ce99a)' : 'light-dark(#a61e1e, #ffa8a8)';
  return <span className="numbers" style={{ color }}>{code} {words[code] ?? ''}</span>;
}
