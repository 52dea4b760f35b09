import type { Performance } from "./types";

export const MINUS = "−";

/** A metric's value: four significant digits, and a real minus. */
export const number = (value: number, digits = 3): string => {
  const shown = Math.abs(value) >= 1000 ? Math.round(value).toLocaleString("en") : value.toFixed(digits);
  return shown.replace("-", MINUS);
};

export const signed = (value: number): string => `${value < 0 ? "" : "+"}${number(value, 4)}`;

export const count = (value: number | null): string => (value === null ? "–" : value.toLocaleString("en"));

export const interval = (one: { low: number; high: number }): string => `${number(one.low)} to ${number(one.high)}`;

export const times = (value: number): string => {
  if (value >= 1000) return ">999×";
  if (Math.abs(value - 1) < 0.05) return `${value.toFixed(2)}×`; // beyond its threshold or not
  return `${value >= 99.95 ? value.toFixed(0) : value.toFixed(1)}×`;
};

const pad = (value: number): string => String(value).padStart(2, "0");

/** A moment in UTC, as all of the bundle tells it. */
export const moment = (iso: string | null): string => {
  if (iso === null) return "at an unknown time";
  const at = new Date(iso);
  return `${day(iso)} ${pad(at.getUTCHours())}:${pad(at.getUTCMinutes())} UTC`;
};

export const day = (iso: string): string => {
  const at = new Date(iso);
  return `${at.getUTCFullYear()}-${pad(at.getUTCMonth() + 1)}-${pad(at.getUTCDate())}`;
};

/** A partition without its year, which the one before it says. */
export const shortly = (partition: string): string => partition.slice(5);

export const plural = (many: number, one: string, more = `${one}s`): string =>
  `${many.toLocaleString("en")} ${many === 1 ? one : more}`;

/** Is the metric below what was promised, as far as its interval tells? Higher is always better. */
export const isBelow = (now: Performance | null, promise: Performance | null): boolean =>
  now !== null && promise !== null && now.metric === promise.metric && now.high < promise.value;
