/** What the endpoints answer: the records of include/retraining/telling/{page,model_page,batch_page}.py. */

export interface Performance {
  metric: string;
  rows: number;
  value: number;
  low: number;
  high: number;
}

export type State = "unknown" | "not well" | "to be looked at" | "nothing yet" | "well";
export type Outcome = "ignore" | "watch" | "retrain" | "blocked" | "rollback" | "broken_feed";

export interface Link {
  name: string;
  url: string;
}

export interface FleetRow {
  model: string;
  description: string;
  owner: string;
  state: State;
  sentence: string;
  version: number | null;
  since: string | null;
  why: string | null;
  by: string | null;
  now: Performance | null;
  now_version: number | null;
  promise: Performance | null;
  trend: number[];
  newest_batch: string | null;
  outcome: Outcome | null;
  reason: string | null;
  unjudged: string[];
  outcomes_due: string[];
  budget: { retrains: number; allowed: number; days: number; hold: string | null } | null;
  next_step: string;
  more_steps: number;
  read_at: string | null;
}

export interface Fleet {
  asked_at: string;
  as_of: string;
  rows: FleetRow[];
  problems: string[];
}

export interface Status {
  trained_from: string | null;
  trained_until: string | null;
  training_rows: number | null;
  previous_version: number | null;
  promise: Performance | null;
  performance: Performance | null;
  newest_batch: string | null;
  verdict: { outcome: Outcome; reasons: string[]; champion_version: number | null } | null;
  unjudged: string[];
  retrain: string | null;
  outcomes_until: string | null;
  outcomes_due: string[];
  probation: string | null;
  fallen: string | null;
  well: boolean | null;
  word: string;
  advice: string[];
}

export interface BatchRow {
  partition: string;
  start: string;
  end: string;
  delivery: "accepted" | "refused" | null;
  in_force: boolean | null;
  rows: number | null;
  quarantined: number | null;
  mapped: boolean;
  outcome: Outcome | null;
  reasons: string[];
  awaits_outcomes: boolean;
  champion_version: number | null;
  performance: Performance | null;
  promise: Performance | null;
  in_sample: boolean;
  unjudged: number | null;
  links: Link[];
}

export interface Cell {
  state: "drifted" | "quiet" | "not judged" | "expected";
  times: number | null;
  measured: string;
  calibrated: boolean;
  distance: number | null;
  reason: string;
}

export interface ColumnRow {
  name: string;
  kind: string;
  importance: number | null;
  cells: (Cell | null)[];
}

export interface Move {
  sequence: number;
  action: "promotion" | "rollback" | "by_hand";
  version: number;
  previous_version: number | null;
  partition: string;
  reason: string;
  actor: string;
  at: string;
  hash: string;
}

export interface DuelRow {
  incident_id: string;
  end: string;
  run_id: string | null;
  partition: string | null;
  candidate_version: number | null;
  champion_version: number | null;
  passed: boolean | null;
  mode: string | null;
  reasons: string[];
  candidate: Performance | null;
  champion: Performance | null;
  gain: { rows: number; value: number; low: number; high: number } | null;
}

export interface Action {
  name: "retrain" | "rollback" | "replay" | "accept_feed";
  dag_id: string;
  title: string;
  meaning: string;
  partition: string | null;
  columns: string[];
}

export interface ModelPage {
  as_of: string;
  row: FleetRow;
  status: Status | null;
  slack_channel: string;
  limitations: string[];
  metric: string;
  retrain_rules: string[];
  batches: BatchRow[];
  columns: ColumnRow[];
  columns_left_out: number;
  moves: Move[];
  ledger_problems: string[] | null;
  duels: DuelRow[];
  actions: Action[];
  links: Link[];
  trouble: string[];
}

export interface Chapter {
  key: string;
  title: string;
  tone: "good" | "bad" | "open" | "plain";
  told: string;
  lines: string[];
  facts: { name: string; value: string }[];
  links: Link[];
}

export interface BatchPage {
  as_of: string;
  model: string;
  partition: string;
  start: string;
  end: string;
  chapters: Chapter[];
  columns: {
    name: string;
    kind: string;
    importance: number | null;
    cell: Cell;
    measurements: [string, number | null, number | null][];
  }[];
  duels: DuelRow[];
  moves: Move[];
  trouble: string[];
}
