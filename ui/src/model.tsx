import { useState, type ReactNode } from "react";
import { Link } from "react-router-dom";
import { Actions, Questions } from "./actions";
import { useAsked } from "./api";
import { Badge, Card, Foot, Lines, OutcomeBadge, Outside, Run, StateBadge, Trouble, Unread, outcomeOf } from "./bits";
import { Timeline } from "./timeline";
import type { BatchRow, DuelRow, ModelPage, Move, Performance } from "./types";
import { count, day, interval, isBelow, moment, number, plural, signed } from "./words";

const UNJUDGED_SHOWN = 6;
const ROWS_SHOWN = 15;

export function ModelView({ model }: { model: string }): ReactNode {
  const { found, trouble } = useAsked<ModelPage>(`retraining/models/${encodeURIComponent(model)}`, 15);
  const linkOf = (partition: string): string =>
    `?model=${encodeURIComponent(model)}&batch=${encodeURIComponent(partition)}`;
  if (found === null) {
    return trouble === null ? <p aria-live="polite">Reading the records …</p> : <Trouble trouble={trouble} hasMore={false} />;
  }
  const { row } = found;
  return (
    <>
      <header className="rt-head">
        <h1>{row.model}</h1>
        <StateBadge state={row.state} />
        <span className="rt-dim">
          {row.description} Owner {row.owner}, {found.slack_channel}.
        </span>
      </header>
      <Trouble trouble={trouble} hasMore />
      <Unread lines={found.trouble} />
      <div className="rt-cards">
        <InProduction page={found} />
        <IsItWell page={found} />
        <Card title="What do I do?">
          {found.status === null ? (
            <p>{row.next_step}</p>
          ) : (
            <ol className="rt-advice">
              {found.status.advice.map((one, place) => (
                <li key={place}>{one}</li>
              ))}
            </ol>
          )}
          <Questions model={model} />
          <Actions actions={found.actions} hold={row.budget?.hold ?? null} />
        </Card>
      </div>
      <Timeline page={found} linkOf={linkOf} />
      <Batches rows={found.batches} linkOf={linkOf} />
      <Duels model={model} duels={found.duels} />
      <Ledger moves={found.moves} problems={found.ledger_problems} />
      {found.limitations.length > 0 && (
        <Card title="What it is not for">
          <Lines lines={found.limitations} />
        </Card>
      )}
      <Foot asOf={found.as_of}>
        <Link to={`/dags?tags=${encodeURIComponent(model)}`}>Its DAGs</Link>
      </Foot>
    </>
  );
}

const Measured = ({ one }: { one: Performance }): ReactNode => (
  <>
    {one.metric} {number(one.value)} ({interval(one)}, {plural(one.rows, "row")})
  </>
);

function InProduction({ page }: { page: ModelPage }): ReactNode {
  const { row, status } = page;
  return (
    <Card title="What is in production?">
      {row.version === null ? (
        <p className="rt-big">{status === null ? "not known" : "nothing yet"}</p>
      ) : (
        <>
          <p className="rt-big">version {row.version}</p>
          <p>
            since {moment(row.since)}
            {row.by !== null && `, by ${row.by}`}
          </p>
          {row.why !== null && <p>{row.why}</p>}
        </>
      )}
      {status?.trained_from && status.trained_until && status.training_rows !== null && (
        <p className="rt-dim">
          trained on {count(status.training_rows)} rows, {day(status.trained_from)} to {day(status.trained_until)}
        </p>
      )}
      {status !== null && status.previous_version !== null && (
        <p className="rt-dim">by the ledger, a rollback would return to version {status.previous_version}</p>
      )}
      <p className="rt-links">
        <Outside links={page.links} />
      </p>
      <ul className="rt-lines rt-dim">
        {page.retrain_rules.map((rule) => (
          <li key={rule}>{rule}</li>
        ))}
      </ul>
    </Card>
  );
}

function IsItWell({ page }: { page: ModelPage }): ReactNode {
  const { row, status } = page;
  const verdict = status?.verdict ?? null;
  return (
    <Card title="Is it well?">
      <p className="rt-big">{row.state === "unknown" ? "not known" : row.sentence}</p>
      {row.state === "unknown" && <p>{row.sentence}</p>}
      {row.now !== null && (
        <p>
          realised <Measured one={row.now} /> on {row.newest_batch}
          {row.now_version !== null && `, by version ${row.now_version}`}
          {isBelow(row.now, row.promise) && row.state !== "not well" && <strong>; the whole interval is below the promise</strong>}
        </p>
      )}
      {row.promise !== null && (
        <p>
          promised <Measured one={row.promise} />
        </p>
      )}
      {row.now === null && row.state !== "unknown" && <p>Its metric is not known yet on the newest batch.</p>}
      {verdict !== null && (
        <>
          <p>
            {row.newest_batch}: <OutcomeBadge outcome={verdict.outcome} />
            {verdict.champion_version !== row.version && (
              <span className="rt-dim"> about version {verdict.champion_version ?? "none"}, before the change</span>
            )}
          </p>
          <Lines lines={verdict.reasons} shown={3} />
        </>
      )}
      {status?.fallen && <p>has it fallen? {status.fallen}</p>}
      {status?.probation && !verdict?.reasons.includes(status.probation) && <p>probation: {status.probation}</p>}
      {row.unjudged.length > 0 && (
        <p className="rt-dim" title={row.unjudged.join(", ")}>
          not judged: {row.unjudged.slice(0, UNJUDGED_SHOWN).join(", ")}
          {row.unjudged.length > UNJUDGED_SHOWN && ` and ${row.unjudged.length - UNJUDGED_SHOWN} more`}
        </p>
      )}
      {status?.outcomes_until && <p className="rt-dim">outcomes are complete until {moment(status.outcomes_until)}</p>}
    </Card>
  );
}

function Batches({ rows, linkOf }: { rows: BatchRow[]; linkOf: (partition: string) => string }): ReactNode {
  const [all, setAll] = useState(false);
  if (rows.length === 0) return null;
  const shown = rows.toReversed().slice(0, all ? rows.length : ROWS_SHOWN);
  return (
    <Card title="Batches" note={`the newest ${shown.length}`}>
      <div className="rt-scroll" tabIndex={0} role="region" aria-label="Table of batches">
        <table className="rt-table">
          <thead>
            <tr>
              <th scope="col">Batch</th>
              <th scope="col" className="rt-number">Rows</th>
              <th scope="col" className="rt-number">Quarantined</th>
              <th scope="col">Verdict</th>
              <th scope="col">Reasons</th>
              <th scope="col" className="rt-number">Metric, promised</th>
              <th scope="col">Look at</th>
            </tr>
          </thead>
          <tbody>
            {shown.map((one) => (
              <tr key={one.partition}>
                <th scope="row">
                  <Link to={linkOf(one.partition)}>{one.partition}</Link>
                  {one.in_force === false && <div className="rt-dim">not in force</div>}
                </th>
                <td className="rt-number">{count(one.rows)}</td>
                <td className="rt-number">{count(one.quarantined)}</td>
                <td>
                  <OutcomeBadge outcome={outcomeOf(one)} />
                </td>
                <td>
                  {one.reasons[0] ?? <span className="rt-dim">–</span>}
                  {one.reasons.length > 1 && <span className="rt-dim"> and {one.reasons.length - 1} more</span>}
                  {one.mapped && <div className="rt-dim">read as a person has said</div>}
                </td>
                <td className="rt-number">
                  {one.performance === null ? "–" : number(one.performance.value)}
                  {isBelow(one.performance, one.promise) && <span title="below the promise"> ▼</span>}
                  {one.promise !== null && <span className="rt-dim"> of {number(one.promise.value)}</span>}
                </td>
                <td>
                  <div className="rt-links">
                    <Link to={linkOf(one.partition)}>story</Link>
                    <Outside links={one.links} />
                  </div>
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      {rows.length > ROWS_SHOWN && (
        <div className="rt-more">
          <button type="button" onClick={() => setAll(!all)}>
            {all ? `The newest ${ROWS_SHOWN}` : `All ${rows.length} that were read`}
          </button>
        </div>
      )}
    </Card>
  );
}

function Duels({ model, duels }: { model: string; duels: DuelRow[] }): ReactNode {
  if (duels.length === 0) return null;
  return (
    <Card title="Retrains and duels">
      <div className="rt-scroll" tabIndex={0} role="region" aria-label="Table of retrains">
        <table className="rt-table">
          <thead>
            <tr>
              <th scope="col">Batch</th>
              <th scope="col">Candidate</th>
              <th scope="col">Against</th>
              <th scope="col">Gain</th>
              <th scope="col">Gate</th>
              <th scope="col">Why</th>
            </tr>
          </thead>
          <tbody>
            {duels.map((one) => (
              <tr key={one.incident_id}>
                <th scope="row">
                  {one.run_id === null ? (
                    (one.partition ?? day(one.end))
                  ) : (
                    <Run dag={`${model}__retrain`} run={one.run_id}>
                      {one.partition ?? day(one.end)}
                    </Run>
                  )}
                </th>
                <td className="rt-short">{one.candidate_version === null ? "–" : `version ${one.candidate_version}`}</td>
                <td className="rt-short">{one.champion_version === null ? "–" : `version ${one.champion_version}`}</td>
                <td>
                  {one.gain === null
                    ? "–"
                    : `${signed(one.gain.value)} (${signed(one.gain.low)} to ${signed(one.gain.high)})`}
                </td>
                <td>
                  <Decision one={one} />
                </td>
                <td>{one.reasons.length === 0 ? "–" : <Lines lines={one.reasons} shown={2} />}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </Card>
  );
}

function Decision({ one }: { one: DuelRow }): ReactNode {
  if (one.passed === null)
    return (
      <Badge tone="plain" sign="…">
        no decision
      </Badge>
    );
  return (
    <>
      {one.passed ? (
        <Badge tone="good" sign="✓">
          passed
        </Badge>
      ) : (
        <Badge tone="bad" sign="×">
          rejected
        </Badge>
      )}
      {one.mode !== null && one.mode !== "enabled" && <div className="rt-dim">gate.mode {one.mode}</div>}
    </>
  );
}

function Ledger({ moves, problems }: { moves: Move[]; problems: string[] | null }): ReactNode {
  return (
    <Card title="Ledger" note={<Verified many={moves.length} problems={problems} />}>
      {problems !== null && problems.length > 0 && <Unread lines={problems} />}
      {moves.length === 0 ? (
        <p className="rt-dim">It has no entry: no champion was ever set.</p>
      ) : (
        <div className="rt-scroll" tabIndex={0} role="region" aria-label="Table of the ledger">
          <table className="rt-table">
            <thead>
              <tr>
                <th scope="col" className="rt-number">Entry</th>
                <th scope="col">When</th>
                <th scope="col">What</th>
                <th scope="col">Version</th>
                <th scope="col">Batch</th>
                <th scope="col">Reason</th>
                <th scope="col">By</th>
              </tr>
            </thead>
            <tbody>
              {moves.toReversed().map((one) => (
                <tr key={one.sequence}>
                  <td className="rt-number" title={one.hash}>
                    {one.sequence}
                  </td>
                  <td className="rt-short">{moment(one.at)}</td>
                  <td>{one.action === "by_hand" ? "by hand" : one.action}</td>
                  <td className="rt-short">
                    {one.version}
                    {one.previous_version !== null && <span className="rt-dim"> after {one.previous_version}</span>}
                  </td>
                  <td className="rt-short">{one.partition || "–"}</td>
                  <td>{one.reason}</td>
                  <td>{one.actor}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
    </Card>
  );
}

function Verified({ many, problems }: { many: number; problems: string[] | null }): ReactNode {
  if (problems === null)
    return (
      <Badge tone="bad" sign="×">
        cannot be read
      </Badge>
    );
  if (problems.length > 0)
    return (
      <Badge tone="bad" sign="!">
        damaged
      </Badge>
    );
  return many > 0 ? (
    <>
      <Badge tone="good" sign="✓">
        whole
      </Badge>{" "}
      {plural(many, "entry", "entries")}; the chain was not compared with MLflow
    </>
  ) : null;
}
