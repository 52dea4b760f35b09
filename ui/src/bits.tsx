import type { ReactNode } from "react";
import { Link as RouterLink } from "react-router-dom";
import type { Refused } from "./api";
import type { Link, Outcome, State } from "./types";
import { count, moment } from "./words";

type Tone = "good" | "bad" | "open" | "plain" | "busy";

const STATES: Record<State, [Tone, string]> = {
  unknown: ["bad", "×"],
  "not well": ["bad", "!"],
  "to be looked at": ["open", "?"],
  "nothing yet": ["plain", "…"],
  well: ["good", "✓"],
};

const OUTCOMES: Record<Outcome | "refused" | "not judged", [Tone, string]> = {
  ignore: ["good", "✓"],
  watch: ["open", "?"],
  blocked: ["open", "‖"],
  retrain: ["busy", "↻"],
  rollback: ["bad", "↶"],
  broken_feed: ["bad", "⚡"],
  refused: ["bad", "×"],
  "not judged": ["plain", "…"],
};

/** A word with a sign: the colour only repeats what both say. */
export function Badge({ tone, sign, children }: { tone: Tone; sign: string; children: ReactNode }): ReactNode {
  return (
    <span className={`rt-badge rt-${tone}`}>
      <span aria-hidden="true">{sign}</span> {children}
    </span>
  );
}

export const StateBadge = ({ state }: { state: State }): ReactNode => {
  const [tone, sign] = STATES[state];
  return (
    <Badge tone={tone} sign={sign}>
      {state}
    </Badge>
  );
};

export const OutcomeBadge = ({ outcome }: { outcome: keyof typeof OUTCOMES }): ReactNode => {
  const [tone, sign] = OUTCOMES[outcome];
  return (
    <Badge tone={tone} sign={sign}>
      {outcome.replace("_", " ")}
    </Badge>
  );
};

export const outcomeOf = (one: { delivery: string | null; outcome: Outcome | null }): keyof typeof OUTCOMES =>
  one.delivery === "refused" ? "refused" : (one.outcome ?? "not judged");

export const outcomeTone = (outcome: keyof typeof OUTCOMES): Tone => OUTCOMES[outcome][0];
export const outcomeSign = (outcome: keyof typeof OUTCOMES): string => OUTCOMES[outcome][1];

export function Card({ title, children, note }: { title: string; children: ReactNode; note?: ReactNode }): ReactNode {
  return (
    <section className="rt-card" aria-label={title}>
      <h2>
        {title}
        {note !== undefined && <span className="rt-note"> {note}</span>}
      </h2>
      {children}
    </section>
  );
}

/** Links that leave Airflow open beside it. */
export function Outside({ links }: { links: Link[] }): ReactNode {
  return links.map((one) => (
    <a key={one.url} href={one.url} target="_blank" rel="noreferrer">
      {one.name}
    </a>
  ));
}

export const Run = ({ dag, run, children }: { dag: string; run: string; children: ReactNode }): ReactNode => (
  <RouterLink to={`/dags/${encodeURIComponent(dag)}/runs/${encodeURIComponent(run)}`}>{children}</RouterLink>
);

export function Trouble({ trouble, hasMore }: { trouble: Refused | null; hasMore: boolean }): ReactNode {
  if (trouble === null) return null;
  const told =
    trouble.status === 401 ? "You are logged out. Reload this page to log in again." : trouble.message;
  return (
    <p className="rt-trouble" role="alert">
      {told}
      {hasMore && " What is below is what was known before."}
    </p>
  );
}

export const Unread = ({ lines }: { lines: string[] }): ReactNode =>
  lines.length > 0 && (
    <div className="rt-trouble" role="alert">
      Not all could be read:
      <ul>
        {lines.map((line) => (
          <li key={line}>{line}</li>
        ))}
      </ul>
    </div>
  );

export const Foot = ({ asOf, children }: { asOf: string; children?: ReactNode }): ReactNode => (
  <footer className="rt-foot">
    Read from the records and the ledger at {moment(asOf)}; MLflow was not asked. {children}
  </footer>
);

/** A long list: the first ones, and a way to the others. */
export function Lines({ lines, shown = 4 }: { lines: string[]; shown?: number }): ReactNode {
  const first = lines.slice(0, shown);
  const rest = lines.slice(shown);
  return (
    <>
      <ul className="rt-lines">
        {first.map((line, place) => (
          <li key={place}>{line}</li>
        ))}
      </ul>
      {rest.length > 0 && (
        <details>
          <summary>{count(rest.length)} more</summary>
          <ul className="rt-lines">
            {rest.map((line, place) => (
              <li key={place}>{line}</li>
            ))}
          </ul>
        </details>
      )}
    </>
  );
}
