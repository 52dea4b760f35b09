import { useLayoutEffect, useRef, useState, type ReactNode } from "react";
import { LinePath } from "@visx/shape";
import { scaleLinear } from "@visx/scale";
import { Link } from "react-router-dom";
import { Card, outcomeOf, outcomeSign, outcomeTone } from "./bits";
import type { BatchRow, Cell, ColumnRow, ModelPage, Move } from "./types";
import { interval, isBelow, number, plural, shortly, times } from "./words";

const FEW = 26; // batches that are shown at first, or as many as there is room for
const ROOM_FOR_ONE = 56;
const FEW_COLUMNS = 12;
const HEIGHT = 190;
const TICKS = 5;
const TOP = 34; // above the chart's values, for the signs of moves
const NARROWEST = 46;
const NARROWEST_HOUR = 64;
const A_DAY = "2013-01-07".length; // a longer name says the hour
const WIDEST = 110;
const FOR_A_WORD = 72;

const SIGNS: Record<Move["action"], string> = { promotion: "▲", rollback: "↶", by_hand: "✎" };
const ACTIONS: Record<Move["action"], string> = {
  promotion: "promoted",
  rollback: "rolled back to",
  by_hand: "moved in by hand",
};

/** Chart, verdicts and map, one batch a column: what stands in one line belongs together. */
export function Timeline({ page, linkOf }: { page: ModelPage; linkOf: (partition: string) => string }): ReactNode {
  const [all, setAll] = useState(false);
  const [allColumns, setAllColumns] = useState(false);
  const columns = allColumns ? page.columns : page.columns.slice(0, FEW_COLUMNS);
  const scroller = useRef<HTMLDivElement>(null);
  const [room, setRoom] = useState(0);
  useLayoutEffect(() => {
    const box = scroller.current;
    if (box === null) return undefined;
    const look = (): void => setRoom(box.clientWidth);
    const observer = new ResizeObserver(look);
    observer.observe(box);
    look();
    return () => observer.disconnect();
  }, []);
  const labels = room < 600 ? 112 : 190;
  const few = Math.max(FEW, Math.floor((room - labels) / ROOM_FOR_ONE));
  const from = all ? 0 : Math.max(page.batches.length - few, 0);
  const batches = page.batches.slice(from);
  const narrowest = batches.some((one) => one.partition.length > A_DAY) ? NARROWEST_HOUR : NARROWEST;
  const width = Math.min(Math.max(Math.floor((room - labels - 2) / Math.max(batches.length, 1)), narrowest), WIDEST);
  useLayoutEffect(() => {
    // the newest batch is what people come for
    if (scroller.current !== null) scroller.current.scrollLeft = scroller.current.scrollWidth;
  }, [all, room, batches.length]);
  if (page.batches.length === 0) {
    return (
      <Card title="Through the batches">
        <p>No batch is known yet. Let one land; the ingest DAG is to be unpaused.</p>
      </Card>
    );
  }
  return (
    <Card title="Through the batches" note="one batch a column; a click tells its story">
      <div className="rt-scroll" ref={scroller} tabIndex={0} role="region" aria-label="Chart and map, one batch a column">
        <table className="rt-map" style={{ width: labels + width * batches.length }}>
          <colgroup>
            <col style={{ width: labels }} />
            {batches.map((one) => (
              <col key={one.partition} style={{ width }} />
            ))}
          </colgroup>
          <thead>
            <tr>
              <td className="rt-left" />
              {batches.map((one) => (
                <th scope="col" key={one.partition}>
                  <Link to={linkOf(one.partition)} title={one.partition}>
                    {shortly(one.partition)}
                  </Link>
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            <Chart batches={batches} moves={page.moves} width={width} labels={labels} />
            <tr>
              <th scope="row" className="rt-left">
                verdict
              </th>
              {batches.map((one) => (
                <Verdict key={one.partition} one={one} to={linkOf(one.partition)} isNarrow={width < FOR_A_WORD} />
              ))}
            </tr>
            {columns.length > 0 && (
              <tr className="rt-rule">
                <th scope="row" className="rt-left">
                  drift by column
                </th>
                <td colSpan={batches.length} />
              </tr>
            )}
            {columns.map((column) => (
              <MapRow key={column.name} column={column} batches={batches} from={from} linkOf={linkOf} />
            ))}
          </tbody>
        </table>
      </div>
      <div className="rt-more">
        {page.batches.length > few && (
          <button type="button" onClick={() => setAll(!all)}>
            {all ? `The newest ${few} batches` : `All ${page.batches.length} batches that were read`}
          </button>
        )}
        {page.columns.length > FEW_COLUMNS && (
          <button type="button" onClick={() => setAllColumns(!allColumns)}>
            {allColumns ? `The ${FEW_COLUMNS} most important columns` : `All ${page.columns.length} columns`}
          </button>
        )}
        {page.columns_left_out > 0 && (
          <span className="rt-dim">{plural(page.columns_left_out, "less important column")} left out</span>
        )}
      </div>
      <Key metric={page.metric} />
    </Card>
  );
}

const Key = ({ metric }: { metric: string }): ReactNode => (
  <p className="rt-legend">
    Chart: {metric} as realised, with its interval; <span className="rt-key-promise">– –</span> what the champion of then
    had promised; ◆ the whole interval is below that; ○ the batch began before the champion’s training data ended; ▲
    promotion, ↶ rollback, ✎ by hand. Map: how far each column moved, as a multiple of its threshold; ~ no history has calibrated the threshold yet; ? could not be
    judged; <em className="rt-expected-key">underlined</em> is expected to drift, and never counts. Number beside a name:
    its importance at training.
  </p>
);

function Verdict({ one, to, isNarrow }: { one: BatchRow; to: string; isNarrow: boolean }): ReactNode {
  const outcome = outcomeOf(one);
  const told = [`${one.partition}: ${outcome}`, ...one.reasons].join("\n");
  return (
    <td className={`rt-cell rt-${outcomeTone(outcome)}`}>
      <Link to={to} title={told} aria-label={outcome}>
        <span aria-hidden="true">{outcomeSign(outcome)}</span> {!isNarrow && <span className="rt-word">{outcome.replace("_", " ")}</span>}
        {one.awaits_outcomes && <span title="outcomes are missing that were due"> *</span>}
      </Link>
    </td>
  );
}

// --- chart ---------------------------------------------------------------------------------------

interface ChartOf {
  batches: BatchRow[];
  moves: Move[];
  width: number;
  labels: number;
}

function Chart({ batches, moves, width, labels }: ChartOf): ReactNode {
  const metric = batches.findLast((one) => one.performance !== null)?.performance?.metric;
  const shown = batches.map((one) => ({
    ...one,
    performance: one.performance?.metric === metric ? one.performance : null,
    promise: one.promise?.metric === metric ? one.promise : null,
  }));
  const values = shown.flatMap((one) => [
    ...(one.performance === null ? [] : [one.performance.low, one.performance.high]),
    ...(one.promise === null ? [] : [one.promise.value]),
  ]);
  if (metric === undefined || values.length === 0) {
    return (
      <tr>
        <th scope="row" className="rt-left">
          metric
        </th>
        <td colSpan={batches.length} className="rt-dim">
          Not known yet: no label of these batches has matured, or no model was in production.
        </td>
      </tr>
    );
  }
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const air = (high - low || Math.abs(high) || 1) * 0.1;
  const y = scaleLinear({ domain: [low - air, high + air], range: [HEIGHT - 10, TOP], nice: true });
  const x = (place: number): number => (place + 0.5) * width;
  const known = shown
    .map((one, place) => ({ one, place, now: one.performance }))
    .flatMap((point) => (point.now === null ? [] : [{ ...point, now: point.now }]));
  const places = new Map(batches.map((one, place) => [one.partition, place]));
  const marks = stacked(moves, places);
  return (
    <tr>
      <th scope="row" className="rt-left rt-axis">
        <span className="rt-metric-name">{metric}</span>
        <svg width={labels} height={HEIGHT} aria-hidden="true">
          {y.ticks(TICKS).map((tick) => (
            <text key={tick} x={labels - 6} y={y(tick)} dy={3.5} textAnchor="end" className="rt-tick">
              {number(tick)}
            </text>
          ))}
        </svg>
      </th>
      <td colSpan={batches.length} className="rt-chart">
        <svg width={width * batches.length} height={HEIGHT} role="img" aria-label={told(metric, known.map((p) => p.one))}>
          {y.ticks(TICKS).map((tick) => (
            <line key={tick} x1={0} x2={width * batches.length} y1={y(tick)} y2={y(tick)} className="rt-grid" />
          ))}
          {shown.map(
            (one, place) =>
              one.delivery === "refused" && (
                <g key={one.partition}>
                  <rect x={place * width} width={width} y={TOP - 8} height={HEIGHT - TOP} className="rt-refused" />
                  <text x={x(place)} y={HEIGHT - 14} className="rt-mark" textAnchor="middle">
                    refused
                  </text>
                </g>
              ),
          )}
          {shown.map(
            (one, place) =>
              one.promise !== null && (
                <line
                  key={one.partition}
                  x1={place * width}
                  x2={(place + 1) * width}
                  y1={y(one.promise.value)}
                  y2={y(one.promise.value)}
                  className="rt-promise"
                >
                  <title>{`${one.partition}: version ${one.champion_version ?? "?"} promised ${number(one.promise.value)} (${interval(one.promise)})`}</title>
                </line>
              ),
          )}
          {unbroken(known).map((part) => (
            <LinePath
              key={part[0]?.place}
              data={part}
              x={(point) => x(point.place)}
              y={(point) => y(point.now.value)}
              className="rt-line"
            />
          ))}
          {known.map(({ one, place, now }) => (
            <Point key={one.partition} one={one} x={x(place)} y={y} now={now} />
          ))}
          {marks.map(({ move, place, row }) => (
            <g key={move.sequence} className={`rt-move rt-move-${move.action}`}>
              <title>{`${ACTIONS[move.action]} version ${move.version}, with ${move.partition}, by ${move.actor}: ${move.reason}`}</title>
              <line x1={(place + 1) * width - 3} x2={(place + 1) * width - 3} y1={12 + row * 12} y2={HEIGHT} />
              <text x={(place + 1) * width - 3} y={10 + row * 12} textAnchor="end">
                {SIGNS[move.action]} v{move.version}
              </text>
            </g>
          ))}
        </svg>
      </td>
    </tr>
  );
}

/** Points of batches that follow one another: a line over a gap would tell of what nobody knows. */
function unbroken<T extends { place: number }>(points: T[]): T[][] {
  const parts: T[][] = [];
  for (const point of points) {
    const part = parts.at(-1);
    if (part?.at(-1)?.place === point.place - 1) part.push(point);
    else parts.push([point]);
  }
  return parts;
}

interface Mark {
  move: Move;
  place: number;
  row: number;
}

/** Where the moves stand: with the batch they came with, several of one batch below one another. */
function stacked(moves: Move[], places: Map<string, number>): Mark[] {
  const taken = new Map<number, number>();
  return moves.flatMap((move) => {
    const place = places.get(move.partition);
    if (place === undefined) return [];
    const row = taken.get(place) ?? 0;
    taken.set(place, row + 1);
    return [{ move, place, row: row % 3 }];
  });
}

interface PointOf {
  one: BatchRow;
  now: NonNullable<BatchRow["performance"]>;
  x: number;
  y: (value: number) => number;
}

function Point({ one, now, x, y }: PointOf): ReactNode {
  const below = isBelow(now, one.promise);
  const at = y(now.value);
  const told =
    `${one.partition}: ${now.metric} ${number(now.value)} (${interval(now)}, ${now.rows.toLocaleString("en")} rows)` +
    (below ? ", below the promise" : "") +
    (one.in_sample ? ", from before the champion's training data ended" : "");
  return (
    <g className={below ? "rt-point rt-below" : "rt-point"}>
      <title>{told}</title>
      <line x1={x} x2={x} y1={y(now.low)} y2={y(now.high)} className="rt-interval" />
      {below ? (
        <path d={`M${x} ${at - 6}L${x + 6} ${at}L${x} ${at + 6}L${x - 6} ${at}Z`} />
      ) : (
        <circle cx={x} cy={at} r={4.5} className={one.in_sample ? "rt-hollow" : undefined} />
      )}
    </g>
  );
}

function told(metric: string, known: BatchRow[]): string {
  const below = known.filter((one) => isBelow(one.performance, one.promise)).map((one) => one.partition);
  const last = known.at(-1);
  const now = last?.performance;
  return (
    `${metric} of ${plural(known.length, "batch", "batches")}` +
    (last && now ? `, the last one, ${last.partition}: ${number(now.value)}` : "") +
    (below.length > 0 ? `; below the promise: ${below.join(", ")}` : "; none below its promise") +
    ". The table of batches has all values."
  );
}

// --- map -----------------------------------------------------------------------------------------

interface RowOf {
  column: ColumnRow;
  batches: BatchRow[];
  from: number;
  linkOf: (partition: string) => string;
}

function MapRow({ column, batches, from, linkOf }: RowOf): ReactNode {
  const worth = column.importance === null ? "importance not known" : `importance ${number(column.importance)}`;
  return (
    <tr>
      <th scope="row" className="rt-left" title={`${column.name}, ${column.kind}, ${worth}`}>
        <span className="rt-name">{column.name}</span>
        {column.importance !== null && <span className="rt-dim rt-worth">{number(column.importance)}</span>}
      </th>
      {batches.map((batch, place) => {
        const cell = column.cells[from + place] ?? null;
        return (
          <td key={batch.partition} className={`rt-cell ${classOf(cell)}`}>
            {cell !== null && (
              <Link to={linkOf(batch.partition)} title={tellCell(column.name, batch.partition, cell)}>
                {shortCell(cell)}
              </Link>
            )}
          </td>
        );
      })}
    </tr>
  );
}

/** Five steps of colour; the number says the same. */
function classOf(cell: Cell | null): string {
  if (cell === null) return "rt-absent";
  if (cell.state === "not judged" || cell.times === null) return "rt-unjudged";
  if (cell.state === "expected") return "rt-expected";
  if (cell.state === "quiet") return cell.times < 0.5 ? "rt-q0" : "rt-q1";
  if (cell.times < 3) return "rt-d0";
  return cell.times < 10 ? "rt-d1" : "rt-d2";
}

function shortCell(cell: Cell): string {
  if (cell.state === "not judged" || cell.times === null) return "?";
  return `${cell.calibrated ? "" : "~"}${times(cell.times)}`;
}

export function tellCell(column: string, partition: string, cell: Cell): string {
  const what =
    cell.times === null
      ? `not judged${cell.distance === null ? "" : ` (distance ${number(cell.distance)})`}`
      : `${cell.measured} at ${times(cell.times)} its threshold, ${cell.state}${cell.calibrated ? "" : ", by a threshold that no history has calibrated"}`;
  return `${column}, ${partition}: ${what}\n${cell.reason}`;
}
