import { useEffect, useState } from "react";

/** An address below Airflow's own, wherever Airflow is served. */
export const address = (path: string): string => new URL(path, document.baseURI).href;

export class Refused extends Error {
  constructor(
    readonly status: number,
    message: string,
  ) {
    super(message);
  }
}

const detailOf = (body: unknown): string => {
  if (body !== null && typeof body === "object" && "detail" in body) {
    const detail = (body as { detail: unknown }).detail;
    return typeof detail === "string" ? detail : JSON.stringify(detail);
  }
  return "";
};

/** Asks Airflow as the user who is logged in; what is refused is thrown with Airflow's own words. */
export async function call<T>(method: "GET" | "POST" | "PATCH", path: string, content?: unknown): Promise<T> {
  const answer = await fetch(address(path), {
    method,
    credentials: "same-origin",
    headers: content === undefined ? { Accept: "application/json" } : { "Content-Type": "application/json" },
    ...(content === undefined ? {} : { body: JSON.stringify(content) }),
  });
  const body: unknown = await answer.json().catch(() => null);
  if (!answer.ok) {
    throw new Refused(answer.status, detailOf(body) || `${answer.status} ${answer.statusText}`);
  }
  return body as T;
}

export interface Asked<T> {
  found: T | null;
  trouble: Refused | null;
}

const RETRY_SECONDS = 1.5;

/** Keeps asking: again after `seconds`, and sooner where the answer is not there yet. */
export function useAsked<T>(path: string, seconds: number, isWhole: (found: T) => boolean = () => true): Asked<T> {
  const [asked, setAsked] = useState<Asked<T> & { path: string }>({ path, found: null, trouble: null });
  useEffect(() => {
    let timer = 0;
    let isOver = false;
    const ask = async (): Promise<void> => {
      let next = seconds;
      if (!document.hidden) {
        try {
          const found = await call<T>("GET", path);
          if (isOver) return;
          next = isWhole(found) ? seconds : RETRY_SECONDS;
          setAsked({ path, found, trouble: null });
        } catch (error) {
          if (isOver) return;
          const trouble =
            error instanceof Refused ? error : new Refused(0, "Airflow does not answer; asking again");
          next = trouble.status === 503 || trouble.status === 0 ? RETRY_SECONDS * 2 : seconds;
          setAsked((before) => ({ path, found: before.path === path ? before.found : null, trouble }));
        }
      }
      timer = window.setTimeout(() => void ask(), next * 1000);
    };
    void ask();
    return () => {
      isOver = true;
      window.clearTimeout(timer);
    };
  }, [path, seconds]);
  return asked.path === path ? asked : { found: null, trouble: null };
}
