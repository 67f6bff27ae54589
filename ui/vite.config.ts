import { svelte } from "@sveltejs/vite-plugin-svelte";
import type { Plugin } from "vite";
import { defineConfig } from "vitest/config";

/** Every system that the app runs on reads WOFF2, so the other two formats of KaTeX's fonts stay out. */
const fonts: Plugin = {
  name: "woff2-only",
  enforce: "pre",
  transform: (code, id) => (id.endsWith("katex.min.css") ? code.replace(/,url\([^)]*\.(?:woff|ttf)\) format\("\w+"\)/g, "") : undefined),
};

export default defineConfig(({ mode }) => ({
  root: import.meta.dirname,
  plugins: [svelte({ configFile: false }), fonts],
  // Tests draw components as a browser does, not as a server would.
  resolve: mode === "test" ? { conditions: ["browser"] } : undefined,
  // The content security policy allows files of the app, and neither fonts nor scripts inside of others.
  build: { target: "safari16", outDir: "dist", emptyOutDir: true, assetsInlineLimit: 0 },
  // Packages are beside this folder.
  server: { fs: { allow: [".."] } },
  test: { environment: "jsdom", setupFiles: ["src/jsdom.ts"], include: ["src/**/*.test.ts"], css: { include: /tokens/ } },
}));
