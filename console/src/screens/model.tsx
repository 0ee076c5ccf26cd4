// A model: its elements in a table that can be edited, and the same as text.
import { Button, Group, Switch, Tabs, TextInput, Textarea } from '@mantine/core';
import { useQuery, useQueryClient } from '@tanstack/react-query';
import { Suspense, lazy, useState } from 'react';
import { useNavigate, useParams } from 'react-router';
import { Problem, api, ok } from '../api/client';
import type { ModelFile } from '../api/types';
import { useMay } from '../app';
import { useWords } from '../i18n';
import { Asked, Page, Sure, Waiting } from '../ui/page';
import { ProblemAlert, tell } from '../ui/problem';
import { Kept, others } from '../ui/kept';
import { declare, declareText, type Outcome } from './declare';
import { Elements, named, rowsOf } from './model-elements';
import { Events, eventFiles, eventsOf } from './model-events';
import { Report } from './objects';

const Editor = lazy(() => import('../ui/editor'));

export default function Model() {
  const { name = '' } = useParams();
  const { t } = useWords();
  const isNew = name === 'new';
  const model = useQuery({
    queryKey: ['model', name],
    queryFn: async () => (await ok(api.GET('/api/v1/models/{name}', { params: { path: { name } } }))) as unknown as ModelFile,
    enabled: !isNew,
  });
  if (isNew) return <Edited key="new" title={t('New model')} file={{ kind: 'Model', name: '', measurepoints: {} }} isNew />;
  return <Asked query={model}>{(file) => <Edited key={name} title={name} file={file} isNew={false} />}</Asked>;
}

const KNOWN = ['kind', 'name', 'description', 'passthrough', 'measurepoints', 'attributes', 'events'];

function Edited({ title, file, isNew }: { title: string; file: ModelFile; isNew: boolean }) {
  const { t } = useWords();
  const may = useMay('operator');
  const client = useQueryClient();
  const navigate = useNavigate();
  const [name, setName] = useState(file.name);
  const [description, setDescription] = useState(file.description ?? '');
  const [passthrough, setPassthrough] = useState(file.passthrough ?? false);
  const [points, setPoints] = useState(rowsOf(file.measurepoints));
  const [attributes, setAttributes] = useState(rowsOf(file.attributes));
  const [events, setEvents] = useState(eventsOf(file.events));
  const [rest, setRest] = useState(others(file, KNOWN));
  const [text, setText] = useState<string>();
  const [tab, setTab] = useState('points');
  const [error, setError] = useState<unknown>();
  const [outcome, setOutcome] = useState<Outcome>();
  const made = (): ModelFile => ({
    ...rest, kind: 'Model', name, measurepoints: named(points),
    ...(attributes.length > 0 && { attributes: named(attributes) }), ...(events.length > 0 && { events: eventFiles(events) }), ...(description && { description }), ...(passthrough && { passthrough }),
  });
  const take = (made: ModelFile) => {
    setName(made.name);
    setDescription(made.description ?? '');
    setPassthrough(made.passthrough ?? false);
    setPoints(rowsOf(made.measurepoints));
    setAttributes(rowsOf(made.attributes));
    setEvents(eventsOf(made.events));
    setRest(others(made, KNOWN));
  };
  const save = async () => {
    setError(undefined);
    setOutcome(undefined);
    try {
      const outcome = text === undefined ? await declare(client, [made()], isNew ? 'new' : 'any') : await declareText(client, text);
      setOutcome(outcome);
      tell(t('Saved.'));
      if (isNew) await navigate(`/models/${encodeURIComponent(outcome.objects[0]?.name ?? name)}`, { replace: true });
    } catch (error) {
      setError(error);
    }
  };
  // A text that is none stays on the screen: what is wrong with it is told.
  const change = (next: string | null) => {
    setError(undefined);
    if (next === 'text') setText(JSON.stringify(made(), null, 2));
    else if (text !== undefined) {
      try {
        take(JSON.parse(text) as ModelFile);
        setText(undefined);
      } catch (error) {
        return setError(new Problem(0, 'bad-request', (error as Error).message, t('the text is JSON')));
      }
    }
    setTab(next ?? 'points');
  };
  return (
    <Page
      title={title}
      actions={may && (
        <>
          <Button onClick={() => void save()}>{t('Save')}</Button>
          {!isNew && (
            <Sure label={t('Delete')} title={t('Delete {name}?', { name: file.name })} onSure={async () => {
              await ok(api.DELETE('/api/v1/models/{name}', { params: { path: { name: file.name } } }));
              await navigate('/models');
              await client.invalidateQueries();
            }}>{t('A model that products use cannot be deleted.')}</Sure>
          )}
        </>
      )}
    >
      <ProblemAlert error={error} />
      {outcome && <Report outcome={outcome} />}
      <Group align="flex-start" grow maw={900}>
        <TextInput label={t('Name')} required value={name} onChange={(e) => setName(e.currentTarget.value)} readOnly={!isNew} />
        <Textarea label={t('Description')} value={description} onChange={(e) => setDescription(e.currentTarget.value)} autosize />
      </Group>
      <Switch label={t('Takes points that it does not declare')} checked={passthrough} onChange={(e) => setPassthrough(e.currentTarget.checked)} />
      <Kept of={rest} />
      <Tabs value={tab} onChange={change} keepMounted={false}>
        <Tabs.List mb="sm">
          <Tabs.Tab value="points">{t('Points')} ({points.length})</Tabs.Tab>
          <Tabs.Tab value="attributes">{t('Attributes')} ({attributes.length})</Tabs.Tab>
          <Tabs.Tab value="events">{t('Events')} ({events.length})</Tabs.Tab>
          <Tabs.Tab value="text">{t('As text')}</Tabs.Tab>
        </Tabs.List>
        <Tabs.Panel value="points"><Elements of="point" label={t('Points')} add={t('Add a point')} rows={points} onChange={setPoints} readOnly={!may} /></Tabs.Panel>
        <Tabs.Panel value="attributes"><Elements of="attribute" label={t('Attributes')} add={t('Add an attribute')} rows={attributes} onChange={setAttributes} readOnly={!may} /></Tabs.Panel>
        <Tabs.Panel value="events"><Events rows={events} onChange={setEvents} readOnly={!may} /></Tabs.Panel>
        <Tabs.Panel value="text"><Suspense fallback={<Waiting />}><Editor language="json" label={t('Model')} value={text ?? ''} onChange={setText} readOnly={!may} /></Suspense></Tabs.Panel>
      </Tabs>
    </Page>
  );
}
