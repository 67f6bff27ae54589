import { svelte } from "@sveltejs/vite-plugin-svelte";
import { defineConfig } from "vitest/config";

export default defineConfig(({ mode }) => ({
  root: import.meta.dirname,
  plugins: [svelte({ configFile: false })],
  // Tests draw components as a browser does, not as a server would.
  resolve: mode === "test" ? { conditions: ["browser"] } : undefined,
  build: { target: "safari16", outDir: "dist", emptyOutDir: true },
  test: { environment: "jsdom", include: ["src/**/*.test.ts"], css: { include: /tokens/ } },
}));
