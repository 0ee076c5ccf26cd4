import react from '@vitejs/plugin-react';
import { defineConfig } from 'vite';

// `BACKTIDE_URL=http://127.0.0.1:8080 npm run dev` shows a running gateway through the dev server.
const gateway = process.env['BACKTIDE_URL'] ?? 'http://127.0.0.1:8080';

export default defineConfig({
  plugins: [react()],
  build: {
    target: 'es2022',
    // light-dark() stays as it is: its stand-in does not know the library's colour scheme.
    cssTarget: ['chrome123', 'firefox120', 'safari17.5'],
    // The folder holds the file that keeps builds out of the repository: scripts/api.mjs empties it.
    emptyOutDir: false,
    chunkSizeWarningLimit: 700,
  },
  server: { proxy: { '/api': gateway, '/readyz': gateway } },
});
