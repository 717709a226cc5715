// Clicks as the file that `emcache few-label --annotations` reads.

import { Facts, placeOf } from "./data";
import { Click } from "./similarity";

const quoted = (text: string) => (/[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);

/** The rows of one dataset: the middle of each clicked token, in pixels of the slice. */
export function pointsOf(facts: Facts, clicks: readonly Click[], dataset: string): string {
  const rows = clicks.flatMap(({ token, sign }) => {
    const { slice, row, column } = placeOf(facts, token);
    const item = facts.slices[slice];
    if (item.dataset !== dataset) {
      return [];
    }
    const [height, width] = item.size;
    const [rowCount, columnCount] = item.grid!;
    const y = Math.floor(((row + 0.5) * height) / rowCount);
    const x = Math.floor(((column + 0.5) * width) / columnCount);
    return [`${quoted(item.id)},${y},${x},${sign > 0 ? "foreground" : "background"}`];
  });
  return ["slice,row,col,label", ...rows, ""].join("\n");
}

export function download(name: string, text: string): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
  link.download = name;
  link.click();
  URL.revokeObjectURL(link.href);
}
