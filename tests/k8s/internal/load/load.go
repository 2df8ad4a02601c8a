// Package load drives one operation of the KMS API over one connection and measures it from outside.
package load

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"nodeseal.internal/tests/k8s/internal/kms"
)

// Plan is one measurement. Either Duration or Calls bounds it.
type Plan struct {
	Op          string // "status", "encrypt" or "decrypt"
	Concurrency int
	Duration    time.Duration
	Calls       int
}

// Result is what the calls of one plan took.
type Result struct {
	Calls    int     `json:"calls"`
	Errors   int     `json:"errors"`
	LastFail string  `json:"last_error,omitempty"`
	Seconds  float64 `json:"seconds"`
	Rate     float64 `json:"rate_per_s"`
	P50      float64 `json:"p50_us"`
	P99      float64 `json:"p99_us"`
}

// seed has the length of what kube-apiserver encrypts, in v1 and v2.
var seed = bytes.Repeat([]byte{0xa5}, 32)

// call returns the function that performs the operation once.
func call(client kms.Client, op string) (func(context.Context) error, error) {
	switch op {
	case "status":
		return func(ctx context.Context) error { _, err := client.Status(ctx); return err }, nil
	case "encrypt":
		return func(ctx context.Context) error { _, err := client.Encrypt(ctx, seed); return err }, nil
	case "decrypt":
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		text, err := client.Encrypt(ctx, seed)
		if err != nil {
			return nil, fmt.Errorf("the text to decrypt could not be made: %w", err)
		}
		return func(ctx context.Context) error { _, err := client.Decrypt(ctx, text); return err }, nil
	}
	return nil, fmt.Errorf("op %q: want status, encrypt or decrypt", op)
}

// Run performs the plan and returns when its last call was answered.
func Run(client kms.Client, plan Plan) (Result, error) {
	if err := plan.check(); err != nil {
		return Result{}, err
	}
	one, err := call(client, plan.Op)
	if err != nil {
		return Result{}, err
	}
	return Drive(plan, func(ctx context.Context, _ int) error { return one(ctx) })
}

func (p Plan) check() error {
	if p.Concurrency < 1 || (p.Duration <= 0) == (p.Calls <= 0) {
		return errors.New("a plan needs a concurrency and either a duration or a number of calls")
	}
	return nil
}

// Drive performs any operation as the plan says, whose Op it does not read. one is told which of the workers calls it.
func Drive(plan Plan, one func(ctx context.Context, worker int) error) (Result, error) {
	if err := plan.check(); err != nil {
		return Result{}, err
	}

	var (
		left      atomic.Int64
		workers   sync.WaitGroup
		latencies = make([][]time.Duration, plan.Concurrency)
		failures  = make([]int, plan.Concurrency)
		lastFail  atomic.Pointer[string]
	)
	left.Store(int64(plan.Calls))
	start := time.Now()
	stop := start.Add(plan.Duration)
	for w := range plan.Concurrency {
		workers.Go(func() {
			for before := time.Now(); ; {
				if plan.Calls > 0 {
					if left.Add(-1) < 0 {
						return
					}
				} else if !before.Before(stop) {
					return
				}
				// kube-apiserver's default timeout; it sends its deadline with every call.
				ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
				err := one(ctx, w)
				cancel()
				after := time.Now()
				latencies[w] = append(latencies[w], after.Sub(before))
				before = after
				if err != nil {
					failures[w]++
					text := err.Error()
					lastFail.Store(&text)
				}
			}
		})
	}
	workers.Wait()
	elapsed := time.Since(start)

	var all []time.Duration
	result := Result{Seconds: elapsed.Seconds()}
	for w := range latencies {
		all = append(all, latencies[w]...)
		result.Errors += failures[w]
	}
	result.Calls = len(all)
	result.Rate = float64(len(all)) / elapsed.Seconds()
	result.P50, result.P99 = quantile(all, 0.50), quantile(all, 0.99)
	if text := lastFail.Load(); text != nil {
		result.LastFail = *text
	}
	return result, nil
}
