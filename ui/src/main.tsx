import type { ReactNode } from "react";
import { Link, useSearchParams } from "react-router-dom";
import { BatchStory } from "./batch";
import { CSS } from "./css";
import { FleetPage } from "./fleet";
import { ModelView } from "./model";

/** The page of the navigation: the fleet, a model, or a batch, as the address says. */
function Models(): ReactNode {
  const [query] = useSearchParams();
  const model = query.get("model");
  const batch = query.get("batch");
  return (
    <Frame>
      {model !== null && (
        <nav className="rt-crumbs" aria-label="Where you are">
          <Link to="?">Models</Link>
          <span aria-hidden="true">/</span>
          {batch === null ? <span>{model}</span> : <Link to={`?model=${encodeURIComponent(model)}`}>{model}</Link>}
          {batch !== null && (
            <>
              <span aria-hidden="true">/</span>
              <span>{batch}</span>
            </>
          )}
        </nav>
      )}
      <Shown model={model} batch={batch} />
    </Frame>
  );
}

function Shown({ model, batch }: { model: string | null; batch: string | null }): ReactNode {
  if (model === null) return <FleetPage />;
  if (batch !== null) return <BatchStory key={`${model}/${batch}`} model={model} partition={batch} />;
  return <ModelView key={model} model={model} />;
}

/** The tab of a DAG: its model. */
function Model({ dagId }: { dagId?: string }): ReactNode {
  const [query] = useSearchParams();
  const batch = query.get("batch");
  const model = dagId?.slice(0, Math.max(dagId.lastIndexOf("__"), 0)) ?? "";
  return (
    <Frame>
      {batch !== null && (
        <nav className="rt-crumbs" aria-label="Where you are">
          <Link to="?">{model}</Link>
          <span aria-hidden="true">/</span>
          <span>{batch}</span>
        </nav>
      )}
      {model === "" ? <p>This DAG belongs to no model.</p> : <Shown model={model} batch={batch} />}
    </Frame>
  );
}

const Frame = ({ children }: { children: ReactNode }): ReactNode => (
  <div className="rt-page">
    <style>{CSS}</style>
    {children}
  </div>
);

// Airflow looks for the function under the name of the view
Object.assign(globalThis, { Models, Model });
