import { Fragment, type ReactNode } from "react";
import { useAsked } from "./api";
import { Card, Foot, Lines, Outside, Run, Trouble, Unread } from "./bits";
import type { BatchPage, Cell, Chapter } from "./types";
import { moment, number, times } from "./words";

const SIGNS: Record<Chapter["tone"], string> = { good: "✓", bad: "!", open: "…", plain: "•" };

export function BatchStory({ model, partition }: { model: string; partition: string }): ReactNode {
  const path = `retraining/models/${encodeURIComponent(model)}/batches/${encodeURIComponent(partition)}`;
  const { found, trouble } = useAsked<BatchPage>(path, 30);
  if (found === null) {
    return trouble === null ? <p aria-live="polite">Reading the records …</p> : <Trouble trouble={trouble} hasMore={false} />;
  }
  return (
    <>
      <header className="rt-head">
        <h1>
          {found.model}, {found.partition}
        </h1>
        <span className="rt-dim">
          rows from {moment(found.start)} to before {moment(found.end)}
        </span>
      </header>
      <Trouble trouble={trouble} hasMore />
      <Unread lines={found.trouble} />
      <Runs model={model} partition={partition} />
      <ol className="rt-story">
        {found.chapters.map((one, place) => (
          <li key={place} className={`rt-chapter rt-edge-${one.tone}`}>
            <h2>
              <span aria-hidden="true">{SIGNS[one.tone]}</span> {one.title}
            </h2>
            <p>{one.told}</p>
            {one.lines.length > 0 && <Lines lines={one.lines} shown={6} />}
            {one.facts.length > 0 && (
              <dl>
                {one.facts.map((fact) => (
                  <div key={fact.name}>
                    <dt>{fact.name}</dt>
                    <dd>
                      {fact.name.startsWith("run of ") ? (
                        <Run dag={`${model}__retrain`} run={fact.value}>
                          {fact.value}
                        </Run>
                      ) : (
                        fact.value
                      )}
                    </dd>
                  </div>
                ))}
              </dl>
            )}
            {one.links.length > 0 && (
              <p className="rt-links">
                <Outside links={one.links} />
              </p>
            )}
          </li>
        ))}
      </ol>
      {found.columns.length > 0 && <Columns page={found} />}
      <Foot asOf={found.as_of} />
    </>
  );
}

interface DagRuns {
  dag_runs: { dag_id: string; dag_run_id: string; state: string }[];
}

/** The runs that Airflow knows of the partition, as far as the user may see them. */
function Runs({ model, partition }: { model: string; partition: string }): ReactNode {
  const query = `dagRuns?partition_key_prefix_pattern=${encodeURIComponent(partition)}&order_by=-run_after&limit=5`;
  const ingest = useAsked<DagRuns>(`api/v2/dags/${encodeURIComponent(`${model}__ingest`)}/${query}`, 30);
  const monitor = useAsked<DagRuns>(`api/v2/dags/${encodeURIComponent(`${model}__monitor`)}/${query}`, 30);
  const runs = [...(ingest.found?.dag_runs ?? []), ...(monitor.found?.dag_runs ?? [])];
  if (runs.length === 0) return null;
  return (
    <p className="rt-links">
      Runs:
      {runs.map((one) => (
        <Run key={`${one.dag_id} ${one.dag_run_id}`} dag={one.dag_id} run={one.dag_run_id}>
          {one.dag_id} ({one.state})
        </Run>
      ))}
    </p>
  );
}

function Columns({ page }: { page: BatchPage }): ReactNode {
  return (
    <Card title="Column by column" note="what drifted first, then what is nearest to its threshold">
      <div className="rt-scroll" tabIndex={0} role="region" aria-label="Table of columns">
        <table className="rt-table">
          <thead>
            <tr>
              <th scope="col">Column</th>
              <th scope="col" className="rt-number">Importance</th>
              <th scope="col">State</th>
              <th scope="col">Measured</th>
              <th scope="col">Reason</th>
            </tr>
          </thead>
          <tbody>
            {page.columns.map((one) => (
              <tr key={one.name}>
                <th scope="row">
                  {one.name}
                  <div className="rt-dim">{one.kind}</div>
                </th>
                <td className="rt-number">{one.importance === null ? "–" : number(one.importance)}</td>
                <td>
                  <CellState cell={one.cell} />
                </td>
                <td>
                  <Measured column={one} />
                </td>
                <td>{one.cell.reason}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </Card>
  );
}

type Measurement = BatchPage["columns"][number]["measurements"][number];

const ratio = ([, value, threshold]: Measurement): number =>
  value === null || threshold === null ? 0 : value / (threshold || 1);

/** All that is beyond its threshold; else what is nearest to it. The others are in the title. */
function Measured({ column }: { column: BatchPage["columns"][number] }): ReactNode {
  const known = column.measurements.filter(([, value]) => value !== null).sort((a, b) => ratio(b) - ratio(a));
  const over = known.filter((one) => ratio(one) > 1);
  const rest = known.slice(Math.max(over.length, 1));
  const told = rest.map(([name, value]) => `${name} ${number(value ?? 0)}`).join(", ");
  return (
    <div className="rt-measured" {...(told === "" ? {} : { title: `not shown: ${told}` })}>
      {known.slice(0, Math.max(over.length, 1)).map(([name, value, threshold]) => (
        <Fragment key={name}>
          <span>
            {name} {number(value ?? 0)}
          </span>
          <span className="rt-dim">{threshold === null ? "no threshold" : `allowed ${number(threshold)}`}</span>
          <Bar value={value ?? 0} threshold={threshold} />
        </Fragment>
      ))}
    </div>
  );
}

function CellState({ cell }: { cell: Cell }): ReactNode {
  if (cell.times === null) return <span className="rt-dim">? not judged</span>;
  return (
    <>
      <strong>{times(cell.times)}</strong> {cell.state}
    </>
  );
}

const LONGEST = 3; // times its threshold

/** A value on a bar that ends at three times its threshold; the mark is the threshold. */
function Bar({ value, threshold }: { value: number; threshold: number | null }): ReactNode {
  if (threshold === null || threshold <= 0) return <span />;
  const share = Math.min(value / threshold, LONGEST) / LONGEST;
  return (
    <svg width={90} height={8} aria-hidden="true" className="rt-bar">
      <rect width={90} height={8} rx={2} className="rt-bar-all" />
      <rect width={90 * share} height={8} rx={2} className={value > threshold ? "rt-bar-over" : "rt-bar-in"} />
      <line x1={90 / LONGEST} x2={90 / LONGEST} y1={0} y2={8} className="rt-bar-mark" />
    </svg>
  );
}
