// Builds one script. React and its router are those of Airflow's own page, which offers them to
// plugins as globals: a second copy of React on a page does not work.
import { createHash } from "node:crypto";
import { readFileSync, readdirSync } from "node:fs";
import { defineConfig } from "vite";

const globals = {
  react: "React",
  "react-dom": "ReactDOM",
  "react/jsx-runtime": "ReactJSXRuntime",
  "react-router-dom": "ReactRouterDOM",
};

/** What the script was built from; a test compares it with what is there. */
const sources = () => {
  const digest = createHash("sha256");
  for (const file of [...readdirSync("src").map((name) => `src/${name}`), "package-lock.json", "vite.config.js"].sort()) {
    digest.update(readFileSync(file));
  }
  return digest.digest("hex");
};

/** Puts the licences of all that is in the script beside it, as they ask for. */
const licences = {
  name: "licences",
  generateBundle(_, bundle) {
    const folders = new Set();
    for (const file of Object.values(bundle)) {
      for (const id of Object.keys(file.modules ?? {})) {
        const found = /^.*node_modules\/((@[^/]+\/)?[^/]+)/.exec(id.replace(/^\0+/, ""));
        if (found) folders.add(found[0]);
      }
    }
    const texts = [...folders].sort().map((folder) => {
      const { name, version, license } = JSON.parse(readFileSync(`${folder}/package.json`, "utf8"));
      const file = readdirSync(folder).find((one) => /^licen[cs]e/i.test(one));
      return `${name} ${version} (${license})\n\n${file ? readFileSync(`${folder}/${file}`, "utf8").trim() : ""}`;
    });
    this.emitFile({ type: "asset", fileName: "page.licences.txt", source: `${texts.join("\n\n---\n\n")}\n` });
  },
};

export default defineConfig({
  plugins: [licences],
  define: { "process.env.NODE_ENV": JSON.stringify("production") },
  build: {
    outDir: "../plugins/retraining_provider/page",
    emptyOutDir: false,
    target: "es2022",
    lib: { entry: "src/main.tsx", formats: ["iife"], name: "RetrainingModels", fileName: () => "page.js" },
    rollupOptions: {
      external: Object.keys(globals),
      output: { globals, postBanner: `/* built from ui/ (npm ci && npm run build), sources ${sources()} */` },
    },
  },
});
