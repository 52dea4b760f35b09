import { useEffect, useId, useRef, useState, type FormEvent, type ReactNode } from "react";
import { Link } from "react-router-dom";
import { call, useAsked } from "./api";
import { Run } from "./bits";
import type { Action } from "./types";

const SHORTEST_REASON = 3;

/** Buttons that start a run of a DAG; whether the user may, Airflow says. */
export function Actions({ actions, hold }: { actions: Action[]; hold: string | null }): ReactNode {
  const [asked, setAsked] = useState<Action | null>(null);
  return (
    <div className="rt-actions">
      {actions.map((one) => (
        <button key={`${one.name} ${one.partition ?? ""}`} type="button" onClick={() => setAsked(one)}>
          {one.title} …
        </button>
      ))}
      {asked !== null && <Ask action={asked} hold={hold} onEnd={() => setAsked(null)} />}
    </div>
  );
}

interface DagRun {
  dag_id: string;
  dag_run_id: string;
}

function confOf(action: Action, reason: string, force: boolean): Record<string, unknown> {
  if (action.name === "retrain") return { reason, force };
  if (action.name === "accept_feed") return { partition: action.partition, right_columns: action.columns, reason };
  return action.partition === null ? { reason } : { partition: action.partition, reason };
}

function Ask({ action, hold, onEnd }: { action: Action; hold: string | null; onEnd: () => void }): ReactNode {
  const [reason, setReason] = useState("");
  const [force, setForce] = useState(false);
  const [isSent, setIsSent] = useState(false);
  const [trouble, setTrouble] = useState("");
  const [made, setMade] = useState<DagRun | null>(null);
  const [isPaused, setIsPaused] = useState(false);
  const dag = encodeURIComponent(action.dag_id);
  useEffect(() => {
    call<{ is_paused: boolean }>("GET", `api/v2/dags/${dag}`)
      .then((found) => setIsPaused(found.is_paused))
      .catch(() => undefined); // the request itself says what is wrong
  }, [dag]);
  const send = async (): Promise<void> => {
    setIsSent(true);
    setTrouble("");
    try {
      const content = { logical_date: null, conf: confOf(action, reason.trim(), force) };
      setMade(await call<DagRun>("POST", `api/v2/dags/${dag}/dagRuns`, content));
    } catch (error) {
      setTrouble(error instanceof Error ? error.message : String(error));
    }
    setIsSent(false);
  };
  return (
    <Dialog title={action.title} onEnd={onEnd}>
      <p>{action.meaning}</p>
      {isPaused && (
        <p className="rt-trouble">
          <Link to={`/dags/${dag}`}>{action.dag_id}</Link> is paused: the run waits until it is unpaused.
        </p>
      )}
      {made === null ? (
        <form
          onSubmit={(event: FormEvent) => {
            event.preventDefault();
            void send();
          }}
        >
          <Reason value={reason} onChange={setReason} />
          {action.name === "retrain" && (
            <label className="rt-check">
              <input type="checkbox" checked={force} onChange={(event) => setForce(event.target.checked)} />
              Force: in spite of cool-down, budget, an earlier retrain of the same cause, or a champion that was deleted
              in MLflow.{hold !== null && ` Now: ${hold}.`}
            </label>
          )}
          <Failed told={trouble} />
          <div className="rt-ends">
            <button type="button" onClick={onEnd}>
              Cancel
            </button>
            <button type="submit" className="rt-main" disabled={isSent || reason.trim().length < SHORTEST_REASON}>
              {isSent ? "Asking Airflow …" : action.title}
            </button>
          </div>
        </form>
      ) : (
        <>
          <p role="status">
            Airflow has taken it:{" "}
            <Run dag={made.dag_id} run={made.dag_run_id}>
              {made.dag_run_id}
            </Run>
          </p>
          <div className="rt-ends">
            <button type="button" onClick={onEnd}>
              Close
            </button>
          </div>
        </>
      )}
    </Dialog>
  );
}

const Failed = ({ told }: { told: string }): ReactNode =>
  told !== "" && (
    <p className="rt-trouble" role="alert">
      Airflow refused: {told}
    </p>
  );

function Reason({ value, onChange }: { value: string; onChange: (value: string) => void }): ReactNode {
  const id = useId();
  return (
    <>
      <label htmlFor={id}>Reason, for the ledger and the reports (required)</label>
      <textarea
        id={id}
        required
        autoFocus
        minLength={SHORTEST_REASON}
        maxLength={2000}
        rows={3}
        value={value}
        onChange={(event) => onChange(event.target.value)}
      />
    </>
  );
}

function Dialog({ title, onEnd, children }: { title: string; onEnd: () => void; children: ReactNode }): ReactNode {
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    if (dialog.current?.open === false) dialog.current.showModal();
  }, []);
  return (
    <dialog ref={dialog} onClose={onEnd} aria-label={title}>
      <h2>{title}</h2>
      {children}
    </dialog>
  );
}

// --- what a person is asked ----------------------------------------------------------------------

interface Question {
  subject: string;
  body: string | null;
  options: string[];
  task_instance: { dag_id: string; dag_run_id: string; task_id: string; map_index: number; state: string };
}

interface QuestionList {
  hitl_details: Question[];
}

/** What runs of the model ask a person now; who may answer, Airflow says. */
export function Questions({ model }: { model: string }): ReactNode {
  const query = "dagRuns/~/hitlDetails?response_received=false";
  const retrain = useAsked<QuestionList>(`api/v2/dags/${encodeURIComponent(`${model}__retrain`)}/${query}`, 15);
  const guard = useAsked<QuestionList>(`api/v2/dags/${encodeURIComponent(`${model}__guard`)}/${query}`, 15);
  const [asked, setAsked] = useState<[Question, string] | null>(null);
  const open = [...(retrain.found?.hitl_details ?? []), ...(guard.found?.hitl_details ?? [])].filter(
    (one) => one.task_instance.state === "awaiting_input",
  );
  return (
    <>
      {open.map((one) => (
        <div className="rt-question" key={`${one.task_instance.dag_run_id} ${one.task_instance.task_id}`}>
          <strong>{one.subject}</strong>
          {one.body !== null && (
            <details>
              <summary>what is known</summary>
              <pre>{one.body}</pre>
            </details>
          )}
          <div className="rt-actions">
            {one.options.map((option) => (
              <button key={option} type="button" onClick={() => setAsked([one, option])}>
                {option} …
              </button>
            ))}
            <Run dag={one.task_instance.dag_id} run={one.task_instance.dag_run_id}>
              its run
            </Run>
          </div>
        </div>
      ))}
      {asked !== null && <Reply question={asked[0]} option={asked[1]} onEnd={() => setAsked(null)} />}
    </>
  );
}

function Reply({ question, option, onEnd }: { question: Question; option: string; onEnd: () => void }): ReactNode {
  const [trouble, setTrouble] = useState("");
  const [isSent, setIsSent] = useState(false);
  const [isDone, setIsDone] = useState(false);
  const { dag_id, dag_run_id, task_id, map_index } = question.task_instance;
  const send = async (): Promise<void> => {
    setIsSent(true);
    setTrouble("");
    const [dag, run, task] = [dag_id, dag_run_id, task_id].map(encodeURIComponent);
    try {
      await call("PATCH", `api/v2/dags/${dag}/dagRuns/${run}/taskInstances/${task}/${map_index}/hitlDetails`, {
        chosen_options: [option],
        params_input: {},
      });
      setIsDone(true);
    } catch (error) {
      setTrouble(error instanceof Error ? error.message : String(error));
    }
    setIsSent(false);
  };
  return (
    <Dialog title={`${option}?`} onEnd={onEnd}>
      <p>{question.subject}</p>
      <Failed told={trouble} />
      {isDone && <p role="status">Airflow has taken the answer.</p>}
      <div className="rt-ends">
        <button type="button" onClick={onEnd}>
          {isDone ? "Close" : "Cancel"}
        </button>
        {!isDone && (
          <button type="button" className="rt-main" disabled={isSent} onClick={() => void send()}>
            {option}
          </button>
        )}
      </div>
    </Dialog>
  );
}
