package wire

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"nodeseal.internal/tests/k8s/internal/kms"
	"nodeseal.internal/tests/k8s/internal/product"
)

// alphabets of header values. HPACK's Huffman code shortens the first; the second has codes of 11 bits and more, so
// that an encoder sends it as it is (RFC 7541, appendix B).
var alphabets = []string{
	"abcdefghijklmnopqrstuvwxyz0123456789-/",
	"<>\\^`{|}~#!\"'()+?@",
}

// junk makes a header value. Metadata must not begin or end with white space, and none of the alphabets has any.
func junk(random *rand.Rand, alphabet string, length int) string {
	var value strings.Builder
	for range length {
		value.WriteByte(alphabet[random.IntN(len(alphabet))])
	}
	return value.String()
}

// The dynamic tables hold 4,096 bytes (RFC 7540, 6.5.2). Values from a few bytes to more than the table, some of them
// repeated, make the encoder insert, refer to, evict and pass by.
func TestCallsWithRotatingHeadersKeepTheHeaderTablesInStep(t *testing.T) {
	p := product.Start(t)
	for _, api := range apis {
		for _, limit := range []uint32{0, 8 << 10} {
			t.Run(fmt.Sprintf("%s with a header limit of %d", api, limit), func(t *testing.T) {
				var options []grpc.DialOption
				if limit > 0 {
					options = append(options, grpc.WithMaxHeaderListSize(limit))
				}
				c := client(t, api, connect(t, p, options...))
				ctx := within(t)
				var workers sync.WaitGroup
				for w := range 16 {
					workers.Go(func() {
						random := rand.New(rand.NewPCG(uint64(w), uint64(limit)))
						for call := range 60 {
							headers := metadata.MD{}
							for range 1 + random.IntN(6) {
								length := 1 + random.IntN([]int{20, 200, 1000}[random.IntN(3)])
								if random.IntN(40) == 0 {
									length = 4200 // does not fit the table at all
								}
								name := fmt.Sprintf("x-rotating-%d", random.IntN(300))
								headers.Set(name, junk(random, alphabets[random.IntN(2)], length))
							}
							headers.Set("x-same", "value", strings.Repeat("v", 90))
							if err := roundTrip(metadata.NewOutgoingContext(ctx, headers), c); err != nil {
								t.Errorf("caller %d, call %d: %v", w, call, err)
								return
							}
						}
					})
				}
				workers.Wait()
				if err := roundTrip(ctx, c); err != nil {
					t.Errorf("a usual call afterwards: %v", err)
				}
			})
		}
	}
}

// The socket's path can be anything a file system takes; grpc-go encodes it, and so the authority can have any length.
func TestAnyPathAsAuthorityIsServed(t *testing.T) {
	p := product.Start(t)
	for what, target := range map[string]string{
		"the usual one":          "/run/nodeseal/kms.sock",
		"one with odd bytes":     "/run/a b/ü%~{}|/kms.sock",
		"one of Huffman's worst": "/" + strings.Repeat("~", 100),
		"one of 1,000 bytes":     "/" + strings.Repeat("long/", 200),
		"one that fits no table": "/" + strings.Repeat("long/", 900),
		"the shortest":           "/",
	} {
		t.Run(what, func(t *testing.T) {
			connection, err := kms.DialAs(p.Socket, target)
			if err != nil {
				t.Fatal(err)
			}
			defer connection.Close()
			for range 3 { // the second and third call refer to what the first put into the tables
				for _, api := range apis {
					if err := roundTrip(within(t), client(t, api, connection)); err != nil {
						t.Fatalf("%s: %v", api, err)
					}
				}
			}
		})
	}
}

func TestAnyAuthorityThatAClientSetsIsServed(t *testing.T) {
	p := product.Start(t)
	for _, authority := range []string{
		"localhost", "localhost:443", "/run/nodeseal/kms.sock", "%2Frun%2Fnodeseal%2Fkms.sock", "a b", "@kms", "[::1", "user@host:port", "~",
	} {
		t.Run(authority, func(t *testing.T) {
			c := client(t, "v2", connect(t, p, grpc.WithAuthority(authority)))
			for range 3 {
				if err := roundTrip(within(t), c); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

func TestManyConnectionsOneAfterTheOtherAndAtOnceAreServed(t *testing.T) {
	p := product.Start(t)
	ctx := within(t)
	once := func(ctx context.Context, n int) error {
		connection, err := kms.Dial(p.Socket)
		if err != nil {
			return err
		}
		defer connection.Close()
		c, err := kms.New(apis[n%2], connection)
		if err != nil {
			return err
		}
		return roundTrip(ctx, c)
	}
	for n := range 50 {
		if err := once(ctx, n); err != nil {
			t.Fatalf("connection %d: %v", n, err)
		}
	}
	var all sync.WaitGroup
	for n := range 50 {
		all.Go(func() {
			if err := once(ctx, n); err != nil {
				t.Errorf("connection %d of 50 at once: %v", n, err)
			}
		})
	}
	all.Wait()
}
