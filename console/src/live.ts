// Figures as they happen, by server-sent events. Comes back by itself after the gateway was away,
// and listens only while somebody looks.
import { useEffect, useRef, useState } from 'react';
import type { Schemas } from './api/client';

export type Overview = Schemas['Overview'];
export type ChannelActivity = Schemas['ChannelActivity'];

export interface Live {
  overview?: Overview;
  channel?: ChannelActivity;
  connected: boolean;
}

const AGAIN_MS = 1000;
const AGAIN_MS_MAX = 15000;

/** `told` hears of every overview, without a state's delay. */
export function useLive(channel?: string, told?: (overview: Overview) => void): Live {
  const [live, setLive] = useState<Live>({ connected: false });
  const hears = useRef(told);
  hears.current = told;
  useEffect(() => {
    let source: EventSource | undefined;
    let timer: ReturnType<typeof setTimeout> | undefined;
    let wait = AGAIN_MS;
    const close = () => {
      clearTimeout(timer);
      source?.close();
      source = undefined;
    };
    const open = () => {
      close();
      source = new EventSource(channel ? `/api/v1/stream?channel=${encodeURIComponent(channel)}` : '/api/v1/stream');
      source.addEventListener('overview', (event) => {
        wait = AGAIN_MS;
        const overview = JSON.parse((event as MessageEvent<string>).data) as Overview;
        hears.current?.(overview);
        setLive((live) => ({ ...live, overview, connected: true }));
      });
      source.addEventListener('channel', (event) => {
        setLive((live) => ({ ...live, channel: JSON.parse((event as MessageEvent<string>).data) as ChannelActivity }));
      });
      source.onerror = () => {
        setLive((live) => ({ ...live, connected: false }));
        // The browser gives up on an answer that is no stream: asked anew, less and less often.
        if (source?.readyState === EventSource.CLOSED) {
          timer = setTimeout(open, wait);
          wait = Math.min(wait * 2, AGAIN_MS_MAX);
        }
      };
    };
    const look = () => (document.hidden ? close() : open());
    look();
    document.addEventListener('visibilitychange', look);
    return () => {
      document.removeEventListener('visibilitychange', look);
      close();
    };
  }, [channel]);
  return live;
}
