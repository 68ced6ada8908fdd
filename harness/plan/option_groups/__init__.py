"""The options of a run, group by group as --help shows them; `harness.plan.options` has them all."""
