// The workspace in the browser: lists and tables from the server, and the explorer of chosen slices.

import "./style.css";
import "./workspace.css";
import { signal, useSignal, useSignalEffect } from "@preact/signals";
import { render } from "preact";
import { Table } from "./Table";

interface Named {
  name: string;
  about: string;
}

interface Workspace {
  root: string;
  datasets: string[];
  runs: string[];
  queries: Named[];
  charts: Named[];
}

interface FeatureSet {
  name: string;
  slices: number;
  dataset: string;
  backbone: string;
  weights: string;
  longest_edge: number | null;
  dtype: string;
}

interface SliceRow {
  id: string;
  split: string | null;
  rows: number;
  columns: number;
  mask: boolean;
  foreground: number | null;
}

const PAGE = 100;
const MOST = 48;

async function ask<T>(path: string): Promise<T> {
  const answer = await fetch(path);
  const text = await answer.text();
  if (!answer.ok) {
    let said = text;
    try {
      said = JSON.parse(text).error;
    } catch {
      // A refusal is plain text.
    }
    throw new Error(said);
  }
  return JSON.parse(text) as T;
}

const route = signal(location.hash);
addEventListener("hashchange", () => (route.value = location.hash));

/** What a path answers, or what is wrong with it. */
function useAnswer<T>(path: string) {
  const answer = useSignal<{ path: string; value: T } | null>(null);
  const wrong = useSignal<string | null>(null);
  const wanted = useSignal(path);
  wanted.value = path;
  useSignalEffect(() => {
    const asked = wanted.value;
    wrong.value = null;
    ask<T>(asked)
      .then((value) => asked === wanted.peek() && (answer.value = { path: asked, value }))
      .catch((error) => (wrong.value = String(error.message ?? error)));
  });
  return { value: answer.value?.path === path ? answer.value.value : null, wrong: wrong.value };
}

function Wait({ wrong }: { wrong: string | null }) {
  return wrong ? <p class="note" role="alert">{wrong}</p> : <p class="hint">Reading ...</p>;
}

const chosen = signal<ReadonlySet<string>>(new Set());
/** A feature set; null until it is known which there are. */
const features = signal<string | null>(null);
const runs = signal<string[]>([]);

function explorer(): string {
  const words = new URLSearchParams();
  chosen.value.forEach((name) => words.append("slice", name));
  runs.value.forEach((run) => words.append("run", run));
  if (features.value) {
    words.set("features", features.value);
  }
  return `/explore?${words}`;
}

function toggle(name: string, on: boolean) {
  const next = new Set(chosen.value);
  if (on) {
    next.add(name);
  } else {
    next.delete(name);
  }
  chosen.value = next;
}

function Dataset({ name }: { name: string }) {
  const text = useSignal("");
  const start = useSignal(0);
  const words = new URLSearchParams({
    text: text.value,
    start: String(start.value),
    count: String(PAGE),
  });
  const { value, wrong } = useAnswer<{ among: number; found: number; slices: SliceRow[] }>(
    `/api/datasets/${encodeURIComponent(name)}/slices?${words}`,
  );
  return (
    <>
      <h2>{name}</h2>
      <p class="row">
        <label>
          Name or split{" "}
          <input
            type="search"
            value={text.value}
            onChange={(event) => {
              text.value = event.currentTarget.value;
              start.value = 0;
            }}
          />
        </label>
        {value && (
          <>
            <span class="hint">
              {value.found} of {value.among} slices; {start.value + 1} to{" "}
              {start.value + value.slices.length} below
            </span>
            <button
              type="button"
              disabled={!start.value}
              onClick={() => (start.value = Math.max(0, start.value - PAGE))}
            >
              Before
            </button>
            <button
              type="button"
              disabled={start.value + PAGE >= value.found}
              onClick={() => (start.value += PAGE)}
            >
              Next
            </button>
          </>
        )}
      </p>
      {value ? (
        <Table
          columns={["slice", "split", "rows", "columns", "mask", "foreground"]}
          rows={value.slices.map((s) => [s.id, s.split, s.rows, s.columns, s.mask, s.foreground])}
          cell={(row, column) =>
            column === 0 ? (
              <label>
                <input
                  type="checkbox"
                  checked={chosen.value.has(`${name}/${row[0]}`)}
                  onChange={(event) => toggle(`${name}/${row[0]}`, event.currentTarget.checked)}
                />{" "}
                {String(row[0])}
              </label>
            ) : typeof row[column] === "number" && column === 5 ? (
              (row[column] as number).toFixed(4)
            ) : (
              String(row[column] ?? "")
            )
          }
        />
      ) : (
        <Wait wrong={wrong} />
      )}
    </>
  );
}

function Choice({ held }: { held: Workspace }) {
  const { value } = useAnswer<FeatureSet[]>("/api/features");
  if (value && features.peek() === null) {
    features.value = value[0]?.name ?? "";
  }
  const count = chosen.value.size;
  return (
    <section class="choice" aria-label="Explorer of chosen slices">
      <h2>Explorer</h2>
      <p class="hint">
        {count
          ? `${count} slices: ${[...chosen.value].slice(0, 6).join(", ")}${count > 6 ? " ..." : ""}`
          : "Choose slices of one dataset or of several."}
      </p>
      <label>
        Tokens{" "}
        <select
          value={features.value ?? ""}
          onChange={(event) => (features.value = event.currentTarget.value)}
        >
          <option value="">none</option>
          {value?.map((one) => (
            <option key={one.name} value={one.name}>
              {one.backbone} {one.longest_edge ?? ""} px {one.dtype}, {one.dataset} ({one.slices}{" "}
              slices)
            </option>
          ))}
        </select>
      </label>
      {held.runs.length > 0 && (
      <label>
        Predictions of{" "}
        <select
          multiple
          size={Math.min(4, Math.max(2, held.runs.length))}
          onChange={(event) =>
            (runs.value = [...event.currentTarget.selectedOptions].map((option) => option.value))
          }
        >
          {held.runs.map((run) => (
            <option key={run} value={run}>
              {run}
            </option>
          ))}
        </select>
      </label>
      )}
      <p class="row">
        {count > 0 && count <= MOST ? (
          <a href={explorer()} target="_blank" rel="noopener">
            Open {count} slices
          </a>
        ) : (
          count > MOST && <span>At most {MOST} slices go onto one page.</span>
        )}
        <button type="button" disabled={!count} onClick={() => (chosen.value = new Set())}>
          None
        </button>
      </p>
    </section>
  );
}

function Rows({ name, about }: Named) {
  const { value, wrong } = useAnswer<{ columns: string[]; count: number; rows: unknown[][] }>(
    `/api/tables/${encodeURIComponent(name)}`,
  );
  return (
    <>
      <h2>{name}</h2>
      <p class="hint">{about}</p>
      {value ? (
        <Table key={name} columns={value.columns} rows={value.rows} count={value.count} />
      ) : (
        <Wait wrong={wrong} />
      )}
    </>
  );
}

function Content({ held }: { held: Workspace }) {
  const [kind, ...rest] = route.value.replace(/^#\/?/, "").split("/");
  const name = decodeURIComponent(rest.join("/"));
  if (kind === "dataset" && held.datasets.includes(name)) {
    return <Dataset key={name} name={name} />;
  }
  const query = held.queries.find((item) => item.name === name);
  if (kind === "table" && query) {
    return <Rows key={name} {...query} />;
  }
  const start = held.queries.find((item) => item.name === "leaderboard");
  return start ? <Rows {...start} /> : null;
}

function List({ title, kind, names }: { title: string; kind: string; names: string[] }) {
  return (
    <>
      <h2>{title}</h2>
      <ul>
        {names.map((name) => (
          <li key={name}>
            <a
              href={kind === "chart" ? `/charts/${name}` : `#/${kind}/${encodeURIComponent(name)}`}
              {...(kind === "chart" && { target: "_blank", rel: "noopener" })}
            >
              {name}
            </a>
          </li>
        ))}
        {!names.length && <li class="hint">none</li>}
      </ul>
    </>
  );
}

function App({ held }: { held: Workspace }) {
  return (
    <>
      <header>
        <h1>{held.root}</h1>
      </header>
      <main class="workspace">
        <nav aria-label="What there is">
          <List title="Datasets" kind="dataset" names={held.datasets} />
          <List title="Tables" kind="table" names={held.queries.map((item) => item.name)} />
          <List title="Charts" kind="chart" names={held.charts.map((item) => item.name)} />
        </nav>
        <div class="content">
          <Choice held={held} />
          <Content held={held} />
        </div>
      </main>
    </>
  );
}

const place = document.getElementById("app")!;
ask<Workspace>("/api/workspace")
  .then((held) => {
    render(<App held={held} />, place);
    document.documentElement.dataset.ready = "true";
  })
  .catch((error) => {
    place.textContent = String(error.message ?? error);
  });
