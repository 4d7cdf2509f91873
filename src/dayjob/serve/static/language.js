// The plots of a language policy's trial.
import { chart } from "./chart.js";
import { everyLook } from "./live.js";
import { trial } from "./trial.js";

const policy = document.querySelector("[data-policy]").dataset.policy;
const plots = { effect: chart("effect"), evidence: chart("evidence") };

everyLook(async () => {
  const answer = await fetch(`/v1/policies/${encodeURIComponent(policy)}/series`, { cache: "no-store" });
  if (answer.ok) trial(plots, (await answer.json()).series.trial ?? [], "judged sessions");
});
