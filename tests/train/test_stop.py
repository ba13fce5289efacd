"""How a run is asked to stop: before its time limit it is to be queued again, else not."""

from __future__ import annotations

import pytest

from bench.errors import RequeueError, StopRequestedError
from bench.plan.config import Resources
from bench.store.store import Store
from bench.train import monitor
from bench.work.runner import execute
from tests.support.tiny_runs import tasks


@pytest.mark.parametrize(
    ("urgency", "asked", "kind", "said"),
    [
        (monitor.REQUEUE, "", RequeueError, "stopped by SIGUSR2, state saved at step 1"),
        (monitor.STOP, "SIGTERM", StopRequestedError, "stopped by SIGTERM, state saved at step 1"),
        (monitor.STOP, "", StopRequestedError, "stopped by another process, state saved"),
    ],
)
def test_the_error_says_whether_to_queue_again(
    urgency: int,
    asked: str,
    kind: type[StopRequestedError],
    said: str,
    store: Store,
    resources: Resources,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def ask(self: monitor.Monitor) -> int:
        self.stopping = asked
        return urgency

    task, _ = tasks("mae")
    monkeypatch.setattr(monitor.Monitor, "urgency", ask)
    with pytest.raises(StopRequestedError, match=said) as caught:
        execute(store, task, resources)
    assert type(caught.value) is kind
    assert store.run(task.run_id).status()["state"] == "stopped"
