package product

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"nodeseal.internal/tests/k8s/internal/process"
)

// Walk is what these tests read from `nodeseal migrate plan --from … --to …`.
type Walk struct {
	Complete bool `json:"complete"`
	Steps    []struct {
		ID    string   `json:"id"`
		State string   `json:"state"`
		Seen  string   `json:"seen"`
		Do    []string `json:"do"`
	} `json:"steps"`
	Text string `json:"-"` // all that was printed
}

// Next is the step that is next; empty if all are done.
func (w Walk) Next() string {
	for _, step := range w.Steps {
		if step.State == "next" {
			return step.ID
		}
	}
	return ""
}

// Walk runs `nodeseal migrate plan` with these arguments and returns its answer and exit code.
func (p *Plugin) Walk(arguments ...string) (Walk, int) {
	p.t.Helper()
	arguments = append([]string{"migrate", "plan", "--json", "--config", p.Config}, arguments...)
	out, err := exec.Command(process.Binary(p.t, "NODESEAL_BIN", "nodeseal"), arguments...).Output()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		p.t.Fatal(err)
	}
	var walk Walk
	if err := json.Unmarshal(out, &walk); err != nil {
		p.t.Fatalf("`nodeseal %v` printed no JSON: %v\n%s", arguments, err, out)
	}
	walk.Text = string(out)
	if exit != nil {
		walk.Text += string(exit.Stderr)
		return walk, exit.ExitCode()
	}
	return walk, 0
}

// RemoveProvider takes its table out of the configuration, now and for later starts; arguments go behind `reload`.
func (p *Plugin) RemoveProvider(name string, arguments ...string) {
	p.t.Helper()
	text, err := os.ReadFile(p.Config)
	if err != nil {
		p.t.Fatal(err)
	}
	p.replace([]byte(withoutProvider(string(text), name)))
	p.run(nil, append([]string{"reload"}, arguments...)...)
	p.setup.Fragment = withoutProvider(p.setup.Fragment, name)
}

// withoutProvider is this TOML without the [[provider]] of that name.
func withoutProvider(text, name string) string {
	var kept strings.Builder
	for table := range strings.SplitSeq("\n"+text, "\n[") {
		if !strings.HasPrefix(table, "[provider]]") || !strings.Contains(table, fmt.Sprintf("\nname = %q", name)) {
			kept.WriteString("\n[" + table)
		}
	}
	return strings.TrimPrefix(strings.TrimPrefix(kept.String(), "\n["), "\n") + "\n"
}
