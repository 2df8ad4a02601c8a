package main

import (
	"context"
	"fmt"

	"nodeseal.internal/tests/k8s/internal/kms"
	"nodeseal.internal/tests/k8s/internal/load"
)

// track is one thing that is measured: one call, or a sequence of them that counts as one.
type track struct {
	name    string
	against []string // other tracks of its group
	one     func(ctx context.Context, worker int) error
	results []load.Result
}

// group is what is measured beside each other.
type group struct {
	title  string
	tracks []*track
}

// Row is one track at one concurrency. Medians over the rounds.
type Row struct {
	Group       string  `json:"group"`
	Name        string  `json:"name"`
	Concurrency int     `json:"concurrency"`
	P50         float64 `json:"p50_us"`
	P99         float64 `json:"p99_us"`
	Rate        float64 `json:"rate_per_s"`
	Errors      int     `json:"errors"`
	LastError   string  `json:"last_error,omitempty"`
	Ratios      []Ratio `json:"ratios,omitempty"`
}

// Ratio is a track over another of its group: medians of the rounds' ratios.
type Ratio struct {
	Against string  `json:"against"`
	P50     float64 `json:"p50"`
	P99     float64 `json:"p99"`
	Rate    float64 `json:"rate"`
}

// measure runs the tracks in turn, a round of each. warm calls come before, and count for nothing.
func (g *group) measure(concurrency, warm int, plan load.Plan, rounds int) ([]Row, error) {
	plan.Concurrency = concurrency
	for _, t := range g.tracks {
		t.results = nil
		if _, err := load.Drive(load.Plan{Concurrency: concurrency, Calls: warm}, t.one); err != nil {
			return nil, err
		}
	}
	for round := range rounds {
		for i := range g.tracks {
			// Another one begins each time: a drift of the machine's speed would else favour whoever is always last.
			t := g.tracks[(i+round)%len(g.tracks)]
			result, err := load.Drive(plan, t.one)
			if err != nil {
				return nil, err
			}
			t.results = append(t.results, result)
		}
	}
	var rows []Row
	for _, t := range g.tracks {
		rows = append(rows, g.row(t, concurrency))
	}
	return rows, nil
}

func (g *group) row(t *track, concurrency int) Row {
	row := Row{Group: g.title, Name: t.name, Concurrency: concurrency}
	p50 := func(r load.Result) float64 { return r.P50 }
	p99 := func(r load.Result) float64 { return r.P99 }
	rate := func(r load.Result) float64 { return r.Rate }
	row.P50, row.P99, row.Rate = t.median(p50), t.median(p99), t.median(rate)
	for _, result := range t.results {
		row.Errors += result.Errors
		if result.LastFail != "" {
			row.LastError = result.LastFail
		}
	}
	for _, name := range t.against {
		for _, other := range g.tracks {
			if other.name == name {
				row.Ratios = append(row.Ratios, Ratio{name, t.over(other, p50), t.over(other, p99), t.over(other, rate)})
			}
		}
	}
	return row
}

func (t *track) median(of func(load.Result) float64) float64 {
	var values []float64
	for _, result := range t.results {
		values = append(values, of(result))
	}
	return load.Median(values)
}

func (t *track) over(other *track, of func(load.Result) float64) float64 {
	var ratios []float64
	for i := range t.results {
		ratios = append(ratios, of(t.results[i])/max(of(other.results[i]), 1))
	}
	return load.Median(ratios)
}

func (n *node) encrypts(name string, against ...string) *track {
	return &track{name: name, against: against, one: func(ctx context.Context, _ int) error {
		_, err := n.Encrypt(ctx, seed)
		return err
	}}
}

// decrypts gives each worker a text of its own.
func (n *node) decrypts(name string, texts []kms.Text, against ...string) *track {
	return &track{name: name, against: against, one: func(ctx context.Context, worker int) error {
		opened, err := n.Decrypt(ctx, texts[worker])
		if err == nil && string(opened) != string(seed) {
			err = fmt.Errorf("the text opened to something else")
		}
		return err
	}}
}

func (n *node) asksStatus(name string) *track {
	return &track{name: name, one: func(ctx context.Context, _ int) error { _, err := n.Status(ctx); return err }}
}

func (v *vault) encrypts(name, mount string) *track {
	return &track{name: name, one: func(ctx context.Context, _ int) error { _, err := v.encrypt(ctx, mount); return err }}
}

func (v *vault) decrypts(name, mount string, texts []string) *track {
	return &track{name: name, one: func(ctx context.Context, worker int) error { return v.decrypt(ctx, mount, texts[worker]) }}
}

func (v *vault) sequences(name, mount string) *track {
	return &track{name: name, one: func(ctx context.Context, _ int) error { return v.sequence(ctx, mount) }}
}
