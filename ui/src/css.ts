/** The page's own style: it changes nothing outside of `.rt-page`, and follows Airflow's light and dark. */
export const CSS = `
.rt-page {
  --ink: #1b2330; --dim: #566072; --ground: #ffffff; --card: #ffffff; --edge: #d5dae2; --soft: #f1f3f7;
  --link: #0b5cad; --line: #1f6fb2; --promise: #5b3f8f;
  --good: #0b6b50; --good-bg: #dff1ea; --bad: #a63603; --bad-bg: #fde3d3; --open: #7a5700; --open-bg: #fbeec6;
  --busy: #0b4f94; --busy-bg: #dcebfa; --plain: #49525f; --plain-bg: #e8ebf0;
  --q0: #f3f6fa; --q1: #dde8f4; --d0: #fbd9bd; --d1: #f4a86b; --d2: #c4540f; --d2-ink: #ffffff; --hot-ink: #3d1a00;
  box-sizing: border-box; height: 100%; overflow: auto; padding: 16px 20px 32px; color: var(--ink);
  font-size: 14px; line-height: 1.45; font-variant-numeric: tabular-nums;
}
.dark .rt-page {
  --ink: #e6e9ef; --dim: #a3adbb; --ground: #0f1216; --card: #171b21; --edge: #343b46; --soft: #20262e;
  --link: #7cb8f2; --line: #6db1ef; --promise: #c2a5f5;
  --good: #8fdcbd; --good-bg: #123a2e; --bad: #ffb38a; --bad-bg: #4d2310; --open: #f2cf74; --open-bg: #40330e;
  --busy: #a5cff9; --busy-bg: #16304d; --plain: #c3cad4; --plain-bg: #2b323c;
  --q0: #1b222b; --q1: #22354a; --d0: #54331a; --d1: #8a4a17; --d2: #e07b2e; --d2-ink: #1a0b00; --hot-ink: #ffe9d8;
}
.rt-page *, .rt-page *::before { box-sizing: border-box; }
.rt-page h1 { font-size: 22px; font-weight: 700; margin: 0; }
.rt-page h2 { font-size: 14px; font-weight: 650; margin: 0 0 8px; }
.rt-page p { margin: 0 0 6px; }
.rt-page a { color: var(--link); text-decoration: none; }
.rt-page a:hover { text-decoration: underline; }
.rt-page a:focus-visible, .rt-page button:focus-visible, .rt-page summary:focus-visible, .rt-page input:focus-visible,
.rt-page textarea:focus-visible, .rt-scroll:focus-visible { outline: 2px solid var(--link); outline-offset: 2px; }
.rt-page code { font-family: ui-monospace, monospace; font-size: 13px; }
.rt-page summary { cursor: pointer; color: var(--link); }
.rt-dim, .rt-note { color: var(--dim); font-weight: 400; }
.rt-note { font-size: 12.5px; }
.rt-legend { color: var(--dim); font-size: 12.5px; margin-top: 8px !important; }
.rt-dim { font-size: 13px; }
.rt-head { display: flex; flex-wrap: wrap; gap: 6px 14px; align-items: center; margin-bottom: 14px; }
.rt-crumbs { display: flex; gap: 8px; margin-bottom: 8px; color: var(--dim); }
.rt-counts { display: flex; flex-wrap: wrap; gap: 8px; align-items: center; color: var(--dim); }
.rt-page button, .rt-page input[type="search"], .rt-page textarea {
  font: inherit; color: var(--ink); background: var(--card); border: 1px solid var(--edge); border-radius: 6px; padding: 3px 10px;
}
.rt-page button { cursor: pointer; min-height: 30px; }
.rt-page button:hover:not(:disabled) { background: var(--soft); }
.rt-page button[aria-pressed="true"] { border-color: var(--link); box-shadow: inset 0 0 0 1px var(--link); }
.rt-page button:disabled { opacity: .55; cursor: default; }
.rt-page button.rt-main { background: var(--link); border-color: var(--link); color: var(--ground); font-weight: 600; }
.rt-page button.rt-main:hover:not(:disabled) { filter: brightness(1.1); background: var(--link); }
.rt-card { background: var(--card); border: 1px solid var(--edge); border-radius: 8px; padding: 14px 16px; margin-bottom: 14px; min-width: 0; overflow-wrap: anywhere; }
.rt-cards { display: grid; grid-template-columns: repeat(3, minmax(0, 1fr)); gap: 14px; }
.rt-big { font-size: 17px; font-weight: 650; line-height: 1.3; }
.rt-lines { margin: 0 0 6px; padding-left: 16px; list-style: disc; }
.rt-lines li { margin-bottom: 2px; }
.rt-advice { margin: 0 0 10px; padding-left: 20px; list-style: decimal; }
.rt-advice li { margin-bottom: 4px; }
.rt-links { display: flex; flex-wrap: wrap; gap: 4px 12px; }
.rt-links:empty { display: none; }
.rt-trouble { background: var(--bad-bg); color: var(--bad); border-radius: 6px; padding: 8px 12px; margin: 0 0 12px !important; overflow-wrap: anywhere; }
.rt-trouble ul { margin: 4px 0 0; padding-left: 18px; list-style: disc; }
.rt-foot { color: var(--dim); font-size: 12.5px; margin-top: 4px; }
.rt-badge { display: inline-block; border-radius: 999px; padding: 1px 9px; font-weight: 600; font-size: 12.5px; white-space: nowrap; }
.rt-badge.rt-good { background: var(--good-bg); color: var(--good); }
.rt-badge.rt-bad { background: var(--bad-bg); color: var(--bad); }
.rt-badge.rt-open { background: var(--open-bg); color: var(--open); }
.rt-badge.rt-busy { background: var(--busy-bg); color: var(--busy); }
.rt-badge.rt-plain { background: var(--plain-bg); color: var(--plain); }
.rt-clamp { display: -webkit-box; -webkit-line-clamp: 3; -webkit-box-orient: vertical; overflow: hidden; overflow-wrap: anywhere; }

.rt-table { width: 100%; border-collapse: collapse; }
.rt-table th, .rt-table td { text-align: left; vertical-align: top; padding: 8px 10px; border-bottom: 1px solid var(--edge); font-weight: 400; }
.rt-table thead th { color: var(--dim); font-weight: 600; font-size: 12.5px; white-space: nowrap; }
.rt-table tbody th { font-weight: 600; white-space: nowrap; }
.rt-table tbody tr:last-child > * { border-bottom: 0; }
.rt-table .rt-number { text-align: right; white-space: nowrap; }
.rt-scroll > .rt-table { min-width: 760px; }
.rt-short { white-space: nowrap; }
.rt-fleet { background: var(--card); border: 1px solid var(--edge); border-radius: 8px; border-collapse: separate; border-spacing: 0; margin-bottom: 12px; }
.rt-fleet tbody th { font-size: 15px; overflow-wrap: anywhere; white-space: normal; }
.rt-fleet td { max-width: 300px; }
.rt-metric { display: flex; gap: 10px; align-items: center; white-space: nowrap; }
.rt-line { fill: none; stroke: var(--line); stroke-width: 1.6; }
.rt-dot { fill: var(--line); }

.rt-scroll { overflow-x: auto; }
.rt-more { display: flex; flex-wrap: wrap; gap: 8px; align-items: center; margin-top: 8px; }
.rt-more:empty { display: none; }
.rt-map { table-layout: fixed; border-collapse: separate; border-spacing: 0; font-size: 12.5px; }
.rt-map th, .rt-map td { padding: 0; text-align: center; font-weight: 400; border-right: 1px solid var(--card); border-bottom: 1px solid var(--card); height: 26px; }
.rt-map thead th { white-space: nowrap; color: var(--dim); font-size: 11.5px; overflow: hidden; }
.rt-map .rt-left { position: sticky; left: 0; z-index: 1; background: var(--card); text-align: left; padding-right: 8px; overflow: hidden; white-space: nowrap; line-height: 25px; }
.rt-name { display: inline-block; max-width: calc(100% - 44px); overflow: hidden; text-overflow: ellipsis; vertical-align: bottom; }
.rt-worth { float: right; font-size: 11.5px; line-height: 25px; }
.rt-map .rt-axis { padding: 0; position: sticky; vertical-align: bottom; }
.rt-metric-name { position: absolute; left: 0; top: 0; font-weight: 600; }
.rt-axis svg, .rt-chart svg { display: block; }
.rt-map .rt-chart { height: auto; overflow: hidden; }
.rt-tick { fill: var(--dim); font-size: 11.5px; }
.rt-grid { stroke: var(--edge); stroke-width: 1; opacity: .7; }
.rt-promise { stroke: var(--promise); stroke-width: 1.8; stroke-dasharray: 5 4; }
.rt-key-promise { color: var(--promise); font-weight: 700; }
.rt-interval { stroke: var(--line); stroke-width: 5; opacity: .35; stroke-linecap: round; }
.rt-point circle { fill: var(--line); }
.rt-point circle.rt-hollow { fill: var(--card); stroke: var(--line); stroke-width: 1.6; }
.rt-below path { fill: var(--d2); stroke: var(--card); }
.rt-below .rt-interval { stroke: var(--d2); }
.rt-refused { fill: var(--bad-bg); opacity: .7; }
.rt-mark { fill: var(--bad); font-size: 11px; }
.rt-move line { stroke: var(--good); stroke-dasharray: 2 3; }
.rt-move text { fill: var(--good); font-size: 11.5px; font-weight: 650; }
.rt-move-rollback line, .rt-move-by_hand line { stroke: var(--bad); }
.rt-move-rollback text, .rt-move-by_hand text { fill: var(--bad); }
.rt-rule th, .rt-rule td { color: var(--dim); padding-top: 6px; height: 30px; }
.rt-cell a { display: block; color: inherit; line-height: 25px; height: 25px; overflow: hidden; white-space: nowrap; }
.rt-cell a:focus-visible { outline-offset: -2px; }
.rt-cell.rt-good { background: var(--good-bg); color: var(--good); }
.rt-cell.rt-bad { background: var(--bad-bg); color: var(--bad); font-weight: 650; }
.rt-cell.rt-open { background: var(--open-bg); color: var(--open); }
.rt-cell.rt-busy { background: var(--busy-bg); color: var(--busy); }
.rt-cell.rt-plain { background: var(--plain-bg); color: var(--plain); }
.rt-word { font-size: 11.5px; }
.rt-q0 { background: var(--q0); color: var(--dim); }
.rt-q1 { background: var(--q1); }
.rt-d0 { background: var(--d0); color: var(--hot-ink); font-weight: 650; }
.rt-d1 { background: var(--d1); color: var(--hot-ink); font-weight: 700; }
.rt-d2 { background: var(--d2); color: var(--d2-ink); font-weight: 700; }
.rt-expected { background: var(--q0); font-style: italic; text-decoration: underline dotted; }
.rt-expected-key { text-decoration: underline dotted; }
.rt-unjudged { color: var(--dim); background: repeating-linear-gradient(135deg, transparent 0 5px, var(--edge) 5px 6px); }
.rt-absent { background: transparent; }

.rt-story { list-style: none; margin: 0 0 14px; padding: 0; display: grid; gap: 8px; }
.rt-chapter { background: var(--card); border: 1px solid var(--edge); border-left-width: 5px; border-radius: 6px; padding: 10px 14px; overflow-wrap: anywhere; }
.rt-chapter h2 { margin-bottom: 4px; }
.rt-edge-good { border-left-color: var(--good); }
.rt-edge-bad { border-left-color: var(--bad); }
.rt-edge-open { border-left-color: var(--open); }
.rt-chapter dl { display: flex; flex-wrap: wrap; gap: 4px 22px; margin: 4px 0; }
.rt-chapter dl > div { display: flex; flex-wrap: wrap; gap: 0 6px; }
.rt-chapter dt { color: var(--dim); }
.rt-chapter dd { margin: 0; }
.rt-measured { display: grid; grid-template-columns: max-content max-content 92px; gap: 2px 10px; align-items: center; white-space: nowrap; }
.rt-bar { display: block; }
.rt-bar-all { fill: var(--plain-bg); }
.rt-bar-in { fill: var(--line); }
.rt-bar-over { fill: var(--d2); }
.rt-bar-mark { stroke: var(--ink); stroke-width: 1.5; }

.rt-actions { display: flex; flex-wrap: wrap; gap: 8px; align-items: center; }
.rt-question { border: 1px solid var(--open); background: var(--open-bg); color: var(--ink); border-radius: 6px; padding: 8px 12px; margin-bottom: 10px; }
.rt-question pre { white-space: pre-wrap; overflow-wrap: anywhere; font: inherit; margin: 4px 0; }
.rt-page dialog { margin: auto; width: min(560px, calc(100vw - 32px)); max-height: calc(100vh - 32px); overflow: auto; color: var(--ink); background: var(--card); border: 1px solid var(--edge); border-radius: 10px; padding: 18px 20px; overflow-wrap: anywhere; }
.rt-page dialog::backdrop { background: rgb(0 0 0 / .45); }
.rt-page dialog h2 { font-size: 17px; }
.rt-page textarea { display: block; width: 100%; margin: 4px 0 10px; padding: 6px 8px; resize: vertical; }
.rt-check { display: flex; gap: 8px; align-items: baseline; margin-bottom: 10px; }
.rt-ends { display: flex; justify-content: flex-end; gap: 8px; margin-top: 10px; }

@media (min-width: 2200px) { .rt-page { font-size: 16px; } .rt-map { font-size: 14px; } }
@media (max-width: 1000px) {
  .rt-cards { grid-template-columns: minmax(0, 1fr); gap: 0; }
  .rt-fleet, .rt-fleet tbody { display: block; }
  .rt-fleet thead { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
  .rt-fleet tr { display: block; padding: 10px 14px; border-bottom: 1px solid var(--edge); }
  .rt-fleet tr:last-child { border-bottom: 0; }
  .rt-fleet th[scope="row"], .rt-fleet td { display: block; max-width: none; padding: 3px 0; border: 0; }
  .rt-fleet td::before { content: attr(data-label); display: block; color: var(--dim); font-size: 12px; }
}
@media (max-width: 560px) { .rt-page { padding: 12px 10px 24px; } .rt-card { padding: 12px; } }
@media (prefers-reduced-motion: no-preference) { .rt-page button { transition: background .12s; } }
`;
