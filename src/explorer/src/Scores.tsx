// What the similarity would segment, dataset by dataset.

import { useSignal, useSignalEffect } from "@preact/signals";
import { datasetsOf, Page } from "./data";
import { Separation, separate } from "./similarity";
import * as state from "./state";

type Row = [string, Separation];

function rowsOf(page: Page, values: Float32Array, cut: number): Row[] {
  const { slices } = page.facts;
  const names = datasetsOf(page.facts);
  const groups = names.map((name) => [name, slices.filter((s) => s.dataset === name)] as const);
  return groups.flatMap(([name, group]): Row[] => {
    const found = separate(page, values, group, cut);
    return found ? [[name, found]] : [];
  });
}

export function Scores({ page }: { page: Page }) {
  const rows = useSignal<Row[]>([]);
  useSignalEffect(() => {
    const values = state.values.value;
    const cut = state.cut.value;
    if (!values || cut === null) {
      rows.value = [];
      return;
    }
    // After the slices are drawn: sorting every token takes longer than drawing them.
    const later = setTimeout(() => (rows.value = rowsOf(page, values, cut)));
    return () => clearTimeout(later);
  });
  if (!state.clicks.value.length) {
    return (
      <p class="hint">
        Click on a slice: every token of every slice is coloured by its cosine similarity to the one
        under the pointer. Further clicks add, Shift and click subtracts, dragging adds what it
        passes.
      </p>
    );
  }
  if (!rows.value.length) {
    return <p class="hint">None of these slices has both a mask and tokens, so there is no score.</p>;
  }
  return (
    <table id="scores">
      <caption>
        Foreground that this similarity finds: pixels, each with the similarity of its token
      </caption>
      <thead>
        <tr>
          <th scope="col">dataset</th>
          <th scope="col">AUROC</th>
          <th scope="col">IoU at the threshold</th>
          <th scope="col">Dice</th>
          <th scope="col">best IoU</th>
          <th scope="col">at</th>
        </tr>
      </thead>
      <tbody>
        {rows.value.map(([name, found]) => (
          <tr key={name} data-dataset={name} data-auroc={found.auroc ?? ""} data-iou={found.iou}>
            <th scope="row">{name}</th>
            <td>{found.auroc === null ? "" : found.auroc.toFixed(3)}</td>
            <td>{found.iou.toFixed(3)}</td>
            <td>{found.dice.toFixed(3)}</td>
            <td>{found.bestIou.toFixed(3)}</td>
            <td>{found.bestThreshold.toFixed(3)}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}
