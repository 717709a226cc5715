// A table that sorts by a click on a heading and filters by what is typed.

import { useSignal } from "@preact/signals";
import { ComponentChildren } from "preact";

export type Cell = string | number | boolean | null | unknown;

interface Props {
  columns: string[];
  rows: Cell[][];
  /** How many rows there are in all, where not all were sent. */
  count?: number;
  /** What stands in a cell, where it is more than its text. */
  cell?: (row: Cell[], column: number) => ComponentChildren;
}

const SHOWN = 500;

export function textOf(value: Cell): string {
  if (value === null || value === undefined) {
    return "";
  }
  if (typeof value === "number" && !Number.isInteger(value)) {
    return value.toPrecision(4);
  }
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}

export function compare(a: Cell, b: Cell): number {
  if (a === null || b === null) {
    return Number(a === null) - Number(b === null);
  }
  if (typeof a === "number" && typeof b === "number") {
    return a - b;
  }
  return textOf(a).localeCompare(textOf(b), undefined, { numeric: true });
}

export function Table({ columns, rows, count = rows.length, cell }: Props) {
  const sorted = useSignal<{ column: number; down: boolean } | null>(null);
  const filter = useSignal("");
  const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
  const held = rows.filter((row) => {
    const text = row.map(textOf).join(" ").toLowerCase();
    return words.every((word) => text.includes(word));
  });
  if (sorted.value) {
    const { column, down } = sorted.value;
    // Rows without a value stay at the end, whichever way is up.
    held.sort((a, b) => {
      const order = compare(a[column], b[column]);
      return down && a[column] !== null && b[column] !== null ? -order : order;
    });
  }
  const numeric = columns.map((_, i) => rows.some((row) => typeof row[i] === "number"));
  function sort(column: number) {
    const before = sorted.value;
    sorted.value = { column, down: before?.column === column ? !before.down : numeric[column] };
  }
  return (
    <>
      <p class="row">
        <label>
          Filter{" "}
          <input
            type="search"
            value={filter.value}
            onInput={(event) => (filter.value = event.currentTarget.value)}
          />
        </label>
        <span class="hint">
          {held.length} of {count} rows
          {count > rows.length && ` (the first ${rows.length} are here)`}
          {held.length > SHOWN && `, the first ${SHOWN} are shown`}
        </span>
      </p>
      <div class="wide" tabIndex={0} role="region" aria-label="Table">
        <table>
          <thead>
            <tr>
              {columns.map((name, i) => (
                <th
                  key={name}
                  scope="col"
                  aria-sort={
                    sorted.value?.column === i
                      ? sorted.value.down
                        ? "descending"
                        : "ascending"
                      : "none"
                  }
                >
                  <button type="button" onClick={() => sort(i)}>
                    {name}
                    {sorted.value?.column === i && (sorted.value.down ? " ▾" : " ▴")}
                  </button>
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {held.slice(0, SHOWN).map((row, i) => (
              <tr key={i}>
                {row.map((value, column) => (
                  <td key={column} class={numeric[column] ? "number" : ""}>
                    {cell ? cell(row, column) : textOf(value)}
                  </td>
                ))}
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </>
  );
}
