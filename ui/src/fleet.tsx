import { useState, type ReactNode } from "react";
import { LinePath } from "@visx/shape";
import { scaleLinear } from "@visx/scale";
import { Link } from "react-router-dom";
import { useAsked } from "./api";
import { Foot, OutcomeBadge, StateBadge, Trouble, Unread } from "./bits";
import type { Fleet, FleetRow, State } from "./types";
import { day, interval, isBelow, moment, number, plural } from "./words";

const WIDTH = 92;
const HEIGHT = 26;
const SEARCHED = 8; // from so many models on, there is a field to search in
const STATES: State[] = ["unknown", "not well", "to be looked at", "nothing yet", "well"];

const OLD_SECONDS = 120;

const ageOf = (fleet: Fleet): number => (new Date(fleet.asked_at).getTime() - new Date(fleet.as_of).getTime()) / 1000;
const isNew = (fleet: Fleet): boolean =>
  ageOf(fleet) < OLD_SECONDS && fleet.rows.every((row) => row.read_at !== null);

export function FleetPage(): ReactNode {
  const { found, trouble } = useAsked<Fleet>("retraining/fleet", 15, isNew);
  const [wanted, setWanted] = useState("");
  const [state, setState] = useState<State | null>(null);
  const rows = (found?.rows ?? []).filter(
    (row) =>
      (state === null || row.state === state) &&
      `${row.model} ${row.owner} ${row.description}`.toLowerCase().includes(wanted.toLowerCase()),
  );
  return (
    <>
      <header className="rt-head">
        <h1>Models</h1>
        {found !== null && (
          <div className="rt-counts" role="group" aria-label="Show only">
            <span>{plural(found.rows.length, "model")}</span>
            {STATES.map((one) => {
              const many = found.rows.filter((row) => row.state === one).length;
              return (
                many > 0 && (
                  <button
                    key={one}
                    type="button"
                    aria-pressed={state === one}
                    onClick={() => setState(state === one ? null : one)}
                  >
                    {many} {one}
                  </button>
                )
              );
            })}
            <span>ordered by what is due</span>
          </div>
        )}
        {found !== null && found.rows.length >= SEARCHED && (
          <input
            type="search"
            aria-label="Search models"
            placeholder="Search"
            value={wanted}
            onChange={(event) => setWanted(event.target.value)}
          />
        )}
      </header>
      <Trouble trouble={trouble} hasMore={found !== null} />
      {found === null && trouble === null && <p aria-live="polite">Reading the records …</p>}
      {found !== null && <Unread lines={found.problems} />}
      {found !== null && ageOf(found) >= OLD_SECONDS && (
        <p className="rt-trouble" role="status">
          Some of this is from {moment(found.as_of)}. If that stays so, the storage does not answer.
        </p>
      )}
      {found !== null && found.rows.length === 0 && (
        <p>
          There is no model that you may see. One is a file in <code>include/models</code>; you see it if you may read
          its DAG <code>MODEL__monitor</code>.
        </p>
      )}
      {rows.length > 0 && <Table rows={rows} />}
      {found !== null && rows.length === 0 && found.rows.length > 0 && <p>No model is like that.</p>}
      {found !== null && <Foot asOf={found.as_of}>It is looked at again every 15 seconds.</Foot>}
    </>
  );
}

function Table({ rows }: { rows: FleetRow[] }): ReactNode {
  return (
    <table className="rt-table rt-fleet">
      <thead>
        <tr>
          <th scope="col">Model</th>
          <th scope="col">State</th>
          <th scope="col">In production</th>
          <th scope="col">Metric now, promised</th>
          <th scope="col">Newest batch</th>
          <th scope="col">Next step</th>
          <th scope="col">Retrains</th>
        </tr>
      </thead>
      <tbody>
        {rows.map((row) => (
          <tr key={row.model}>
            <th scope="row">
              <Link to={`?model=${encodeURIComponent(row.model)}`}>{row.model}</Link>
              <div className="rt-dim">{row.owner}</div>
            </th>
            <td data-label="State">
              <StateBadge state={row.state} />
              <div className="rt-clamp" title={row.sentence}>
                {row.sentence}
              </div>
            </td>
            <td data-label="In production">
              <Production row={row} />
            </td>
            <td data-label="Metric now, promised">
              <Metric row={row} />
            </td>
            <td data-label="Newest batch">
              <Newest row={row} />
            </td>
            <td data-label="Next step">
              <div className="rt-clamp" title={row.next_step}>
                {row.next_step}
              </div>
              {row.more_steps > 0 && <div className="rt-dim">and {row.more_steps} more</div>}
            </td>
            <td data-label="Retrains">
              <Budget row={row} />
            </td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

function Production({ row }: { row: FleetRow }): ReactNode {
  if (row.version === null) return <span className="rt-dim">{row.state === "unknown" ? "not known" : "nothing yet"}</span>;
  return (
    <>
      <strong>version {row.version}</strong>
      {row.since !== null && <div className="rt-dim">since {day(row.since)}</div>}
      {row.why !== null && (
        <div className="rt-clamp rt-dim" title={row.why}>
          {row.why}
        </div>
      )}
    </>
  );
}

function Metric({ row }: { row: FleetRow }): ReactNode {
  const { now, promise } = row;
  if (now === null && promise === null) return <span className="rt-dim">not known yet</span>;
  const isOther = now !== null && row.now_version !== row.version;
  return (
    <>
      <div className="rt-metric">
        <span>
          <strong>{now === null ? "–" : number(now.value)}</strong>
          {isBelow(now, promise) && <span title="its whole interval is below the promise"> ▼</span>}
          <span className="rt-dim"> of {promise === null ? "–" : number(promise.value)}</span>
        </span>
        <Trend values={row.trend} />
      </div>
      <div className="rt-dim">
        {(now ?? promise)?.metric}
        {now !== null && `, ${interval(now)}`}
      </div>
      {isOther && <div className="rt-dim">by version {row.now_version ?? "?"}, before the change</div>}
    </>
  );
}

function Trend({ values }: { values: number[] }): ReactNode {
  const last = values.at(-1);
  if (last === undefined || values.length < 2) return null;
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const x = scaleLinear({ domain: [0, values.length - 1], range: [3, WIDTH - 4] });
  const y = scaleLinear({ domain: low === high ? [low - 1, high + 1] : [low, high], range: [HEIGHT - 4, 4] });
  const told = `the last ${values.length} batches: ${number(low)} at least, ${number(high)} at most, ${number(last)} now`;
  return (
    <svg width={WIDTH} height={HEIGHT} role="img" aria-label={told}>
      <title>{told}</title>
      <LinePath
        data={values.map((value, place) => ({ value, place }))}
        x={(one) => x(one.place)}
        y={(one) => y(one.value)}
        className="rt-line"
      />
      <circle cx={x(values.length - 1)} cy={y(last)} r={3} className="rt-dot" />
    </svg>
  );
}

function Newest({ row }: { row: FleetRow }): ReactNode {
  if (row.newest_batch === null) return <span className="rt-dim">none in force</span>;
  const query = `?model=${encodeURIComponent(row.model)}&batch=${encodeURIComponent(row.newest_batch)}`;
  return (
    <>
      <Link to={query}>{row.newest_batch}</Link> <OutcomeBadge outcome={row.outcome ?? "not judged"} />
      {row.reason !== null && (
        <div className="rt-clamp rt-dim" title={row.reason}>
          {row.reason}
        </div>
      )}
      {row.unjudged.length > 0 && (
        <div className="rt-dim" title={row.unjudged.join(", ")}>
          {plural(row.unjudged.length, "column")} not judged
        </div>
      )}
      {row.outcomes_due.length > 0 && <div>{plural(row.outcomes_due.length, "outcome file")} due</div>}
    </>
  );
}

function Budget({ row }: { row: FleetRow }): ReactNode {
  if (row.budget === null) return <span className="rt-dim">–</span>;
  const { retrains, allowed, days, hold } = row.budget;
  return (
    <>
      {retrains} of {allowed}
      <div className="rt-dim">in {days} days of data</div>
      {hold !== null && (
        <div className="rt-clamp rt-dim" title={hold}>
          {hold}
        </div>
      )}
    </>
  );
}
