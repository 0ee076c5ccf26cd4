// Kafka: what is wrong with the cluster that is configured, in plain words; which rules go there.
import { Alert, Anchor, Badge, Button, Code, Group, Stack, TagsInput, Text } from '@mantine/core';
import { useQuery } from '@tanstack/react-query';
import { Link } from 'react-router';
import { Problem, api, ok } from '../api/client';
import { useWords } from '../i18n';
import { Empty, Page, Waiting, useFilters } from '../ui/page';
import { ProblemAlert } from '../ui/problem';
import { Rows } from '../ui/rows';

export default function Kafka() {
  const { t } = useWords();
  const filters = useFilters();
  const topics = filters.get('topics');
  const report = useQuery({
    queryKey: ['kafka', topics],
    queryFn: () => ok(api.GET('/api/v1/kafka/check', { params: { query: { ...(topics && { topics }) } } })),
    // It speaks to the cluster, which may take half a minute: asked when somebody wants to know.
    staleTime: Infinity,
  });
  const isAbsent = report.error !== null && Problem.from(report.error).code === 'no-kafka';
  const words = { ok: t('in order'), warning: t('to be looked at'), wrong: t('wrong') };
  const colors = { ok: 'green', warning: 'yellow', wrong: 'red' };
  const again = <Button loading={report.isFetching} onClick={() => void report.refetch()}>{t('Check again')}</Button>;
  return (
    <Page title="Kafka" about={t('Looks at addresses, certificate, credential and topics, and writes nothing that a reader of a topic could see.')} actions={!isAbsent && again}>
      {isAbsent && (
        <Empty>
          <Stack gap="xs" align="center">
            <Text>{t('No Kafka is configured: rules that send there are idle and hold no log.')}</Text>
            <Text size="sm"><b>{t('What to do')}:</b> {t('set this in the configuration, then start the gateway again:')} <Code>kafka.bootstrap_servers</Code></Text>
          </Stack>
        </Empty>
      )}
      {!isAbsent && (
        <>
          <Group align="flex-end">
            <TagsInput label={t('Topics beside the default ones')} w={420} value={topics ? topics.split(',') : []} onChange={(topics) => filters.set({ topics: topics.join(',') })} />
          </Group>
          {report.isFetching && <Waiting what={t('The cluster is looked at…')} />}
          {report.error && <ProblemAlert error={report.error} />}
          {report.data && !report.isFetching && (
            <>
              <Alert color={report.data.ok ? 'green' : 'red'} variant="light" role="status" data-testid="kafka" title={report.data.ok ? t('Nothing is wrong.') : t('Something is wrong.')} />
              <Rows
                label={t('What was looked at')} rows={report.data.findings} id={(finding) => `${finding.subject} ${finding.message}`}
                columns={[
                  { name: t('Verdict'), cell: (f) => <Badge variant="light" color={colors[f.verdict]}>{words[f.verdict]}</Badge> },
                  { name: t('What'), cell: (f) => <span className="mono">{f.subject}</span> },
                  { name: t('What is so'), cell: (f) => <Text size="sm" span style={{ overflowWrap: 'anywhere' }}>{f.message}</Text> },
                ]}
              />
            </>
          )}
        </>
      )}
      <Text size="sm"><Anchor component={Link} to="/rules?to=kafka" size="sm">{t('Rules that send to Kafka')}</Anchor></Text>
    </Page>
  );
}
