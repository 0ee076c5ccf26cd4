// A secret that is given and never shown again.
import { Button, Group, Modal, PasswordInput, Stack, Text } from '@mantine/core';
import { useState } from 'react';
import { useWords } from '../i18n';
import { ProblemAlert } from './problem';

/** `onSet` gets the secret, or null to take it away; what it throws is told. */
export function SecretModal({ name, about, hasSecret, onSet, onClose }: { name: string; about: string; hasSecret: boolean; onSet: (secret: string | null) => Promise<void>; onClose: () => void }) {
  const { t } = useWords();
  const [secret, setSecret] = useState('');
  const [error, setError] = useState<unknown>();
  const set = async (secret: string | null) => {
    setError(undefined);
    try {
      await onSet(secret);
      onClose();
    } catch (error) {
      setError(error);
    }
  };
  return (
    <Modal opened onClose={onClose} title={t('Secret of {name}', { name })} closeButtonProps={{ 'aria-label': t('Close') }}>
      <form onSubmit={(event) => { event.preventDefault(); void set(secret); }}>
        <Stack>
          <Text size="sm">{about}</Text>
          <PasswordInput label={t('Secret')} required autoComplete="off" value={secret} onChange={(e) => setSecret(e.currentTarget.value)} visibilityToggleButtonProps={{ 'aria-label': t('Show the secret') }} data-autofocus />
          <ProblemAlert error={error} />
          <Group justify="flex-end">
            {hasSecret && <Button variant="light" color="red" onClick={() => void set(null)}>{t('Take it away')}</Button>}
            <Button variant="default" onClick={onClose}>{t('Cancel')}</Button><Button type="submit">{t('Set the secret')}</Button>
          </Group>
        </Stack>
      </form>
    </Modal>
  );
}
