package vm

import (
	"nodeseal.internal/tests/k8s/internal/machine"
)

// loadTask is a kmsload that runs in the machine.
type loadTask struct {
	n    *node
	task *machine.Task
}

func (l *loadTask) assertNothingLost() {
	l.n.t.Helper()
	out, said, code := l.task.Wait(l.n.t)
	var result struct {
		Op     string  `json:"op"`
		Calls  int     `json:"calls"`
		Errors int     `json:"errors"`
		Last   string  `json:"last_error"`
		Rate   float64 `json:"rate_per_s"`
	}
	if out == "" {
		l.n.t.Fatalf("kmsload: exit code %d: %s", code, said)
	}
	l.n.parse(out, &result)
	l.n.t.Logf("FIGURE: %s: %d calls, %d failed", result.Op, result.Calls, result.Errors)
	if result.Errors > 0 || result.Calls == 0 {
		l.n.t.Errorf("%s: %d of %d calls failed, the last one: %s", result.Op, result.Errors, result.Calls, result.Last)
	}
}
