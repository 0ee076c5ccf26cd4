import '@mantine/core/styles.css';
import '@mantine/notifications/styles.css';
import './console.css';
import { MantineProvider, createTheme } from '@mantine/core';
import { Notifications } from '@mantine/notifications';
import { QueryClient, QueryClientProvider } from '@tanstack/react-query';
import { StrictMode } from 'react';
import { createRoot } from 'react-dom/client';
import { BrowserRouter } from 'react-router';
import { Problem } from './api/client';
import { App } from './app';
import { WordsProvider } from './i18n';
import { ZoneProvider } from './time';

const theme = createTheme({
  primaryColor: 'cyan',
  primaryShade: 9,
  autoContrast: true,
  luminanceThreshold: 0.35,
  fontFamily: 'system-ui, -apple-system, "Segoe UI", "Noto Sans", "PingFang SC", "Microsoft YaHei", sans-serif',
  defaultRadius: 'sm',
  respectReducedMotion: true,
});

const client = new QueryClient({
  defaultOptions: {
    queries: {
      staleTime: 2000,
      // A refusal stays one; only a gateway that is away is asked again.
      retry: (times, error) => times < 3 && Problem.from(error).code === 'unreachable',
    },
  },
});

const root = document.getElementById('root');
if (!root) throw new Error('the page has no root');
createRoot(root).render(
  <StrictMode>
    <MantineProvider theme={theme} defaultColorScheme="auto">
      <Notifications position="bottom-right" containerWidth={420} />
      <QueryClientProvider client={client}>
        <WordsProvider>
          <ZoneProvider>
            {/* A filter that is set is seen at once: the next key stroke goes on from it. */}
            <BrowserRouter useTransitions={false}>
              <App />
            </BrowserRouter>
          </ZoneProvider>
        </WordsProvider>
      </QueryClientProvider>
    </MantineProvider>
  </StrictMode>,
);
