package wire

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"nodeseal.internal/tests/k8s/internal/product"
)

// raw is an HTTP/2 client that writes its header blocks by hand, for what grpc-go never sends but another client may.
type raw struct {
	connection net.Conn
	framer     *http2.Framer
	stream     uint32
}

func dialRaw(t *testing.T, p *product.Plugin) *raw {
	t.Helper()
	connection, err := net.Dial("unix", p.Socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { connection.Close() })
	connection.SetDeadline(time.Now().Add(15 * time.Second))
	if _, err := io.WriteString(connection, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	r := &raw{connection: connection, framer: http2.NewFramer(connection, connection)}
	r.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	if err := r.framer.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	return r
}

// shape is how one header block is laid out on frames.
type shape struct {
	name     string
	padding  uint8
	priority bool
	pieces   int // HEADERS and pieces-1 CONTINUATION
}

var shapes = []shape{
	{name: "in one frame", pieces: 1},
	{name: "padded", pieces: 1, padding: 200},
	{name: "with a priority", pieces: 1, priority: true},
	{name: "padded with a priority over CONTINUATION", pieces: 3, padding: 1, priority: true},
	{name: "over four frames", pieces: 4},
}

// status sends a Status request with the header block and returns its grpc-status.
func (r *raw) status(block []byte, s shape) (string, error) {
	r.stream += 1 + r.stream&1 // 1, 3, 5, ...
	size := (len(block) + s.pieces - 1) / s.pieces
	headers := http2.HeadersFrameParam{
		StreamID: r.stream, BlockFragment: block[:size], EndHeaders: s.pieces == 1, PadLength: s.padding,
	}
	if s.priority {
		headers.Priority = http2.PriorityParam{Weight: 15, Exclusive: true}
	}
	if err := r.framer.WriteHeaders(headers); err != nil {
		return "", err
	}
	for rest := block[size:]; len(rest) > 0; {
		n := min(size, len(rest))
		if err := r.framer.WriteContinuation(r.stream, n == len(rest), rest[:n]); err != nil {
			return "", err
		}
		rest = rest[n:]
	}
	// One message of gRPC: not compressed, of no bytes.
	if err := r.framer.WriteData(r.stream, true, make([]byte, 5)); err != nil {
		return "", err
	}
	for {
		frame, err := r.framer.ReadFrame()
		if err != nil {
			return "", err
		}
		switch f := frame.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				err = r.framer.WriteSettingsAck()
			}
		case *http2.PingFrame:
			if !f.IsAck() {
				err = r.framer.WritePing(true, f.Data)
			}
		case *http2.RSTStreamFrame:
			err = fmt.Errorf("RST_STREAM %v", f.ErrCode)
		case *http2.GoAwayFrame:
			err = fmt.Errorf("GOAWAY %v %s", f.ErrCode, f.DebugData())
		case *http2.MetaHeadersFrame:
			if f.StreamID == r.stream && f.StreamEnded() {
				for _, field := range f.RegularFields() {
					if field.Name == "grpc-status" {
						return field.Value, nil
					}
				}
				err = fmt.Errorf("trailers without grpc-status: %v", f.Fields)
			}
		}
		if err != nil {
			return "", err
		}
	}
}

// literal is one representation of RFC 7541, 6.2: first is its first octet with an index of less than 15, or, with the
// index 0, followed by the name.
func literal(first byte, name, value string, huffman bool) []byte {
	out := []byte{first}
	if name != "" {
		out = append(out, text(name, huffman)...)
	}
	return append(out, text(value, huffman)...)
}

// text is a string literal of RFC 7541, 5.2.
func text(s string, huffman bool) []byte {
	content, flag := []byte(s), byte(0)
	if huffman {
		content, flag = hpack.AppendHuffmanString(nil, s), 0x80
	}
	if len(content) < 127 {
		return append([]byte{flag | byte(len(content))}, content...)
	}
	out, rest := []byte{flag | 127}, len(content)-127
	for ; rest >= 128; rest >>= 7 {
		out = append(out, byte(rest)|0x80)
	}
	return append(append(out, byte(rest)), content...)
}

func TestEveryWayToSpellAnAuthorityKeepsTheHeaderTablesInStep(t *testing.T) {
	p := product.Start(t)
	authority := "%2Frun%2Fnodeseal%2Fkms.sock"
	for _, spelling := range []struct {
		name    string
		bytes   []byte
		indexed bool // it enters the dynamic table
	}{
		{"with the static name, for the table", literal(0x41, "", authority, false), true},
		{"with the static name and Huffman's code, for the table", literal(0x41, "", authority, true), true},
		{"spelt out, for the table", literal(0x40, ":authority", authority, false), true},
		{"spelt out in Huffman's code, for the table", literal(0x40, ":authority", authority, true), true},
		{"long, for the table", literal(0x41, "", strings.Repeat(authority, 20), false), true},
		{"with the static name, not for the table", literal(0x01, "", authority, true), false},
		{"spelt out, not for the table", literal(0x00, ":authority", authority, false), false},
		{"with the static name, never for a table", literal(0x11, "", authority, false), false},
		{"spelt out, never for a table", literal(0x10, ":authority", authority, true), false},
		{"a valid one", literal(0x41, "", "localhost", true), true},
	} {
		for _, s := range shapes {
			t.Run(spelling.name+" "+s.name, func(t *testing.T) {
				r := dialRaw(t, p)
				// Newest first, the table then is: te, content-type, the authority if it is indexed, :path.
				fresh := bytes.Join([][]byte{
					{0x83, 0x86}, // :method POST, :scheme http
					literal(0x44, "", "/v2.KeyManagementService/Status", true),
					spelling.bytes,
					literal(0x40, "content-type", "application/grpc", true),
					literal(0x40, "te", "trailers", false),
				}, nil)
				again := append([]byte{0x83, 0x86}, 0x80|65, 0x80|64, 0x80|63, 0x80|62)
				if !spelling.indexed {
					again = bytes.Join([][]byte{{0x83, 0x86, 0x80 | 64}, spelling.bytes, {0x80 | 63, 0x80 | 62}}, nil)
				}
				// A table that shrinks to nothing and grows again has lost everything (RFC 7541, 4.3).
				emptied := append([]byte{0x20, 0x3f, 0xe1, 0x1f}, fresh...)
				for n, block := range [][]byte{fresh, again, again, emptied, again} {
					got, err := r.status(block, s)
					if err != nil || got != "0" {
						t.Fatalf("request %d: grpc-status %q, %v; want 0", n+1, got, err)
					}
				}
			})
		}
	}
}

func TestARequestWithoutAnyAuthorityIsServed(t *testing.T) {
	r := dialRaw(t, product.Start(t))
	block := bytes.Join([][]byte{
		{0x83, 0x86}, literal(0x44, "", "/v2.KeyManagementService/Status", true),
		literal(0x40, "content-type", "application/grpc", true), literal(0x40, "te", "trailers", true),
	}, nil)
	if got, err := r.status(block, shapes[0]); err != nil || got != "0" {
		t.Fatalf("grpc-status %q, %v; want 0", got, err)
	}
}

// Frames of a flood are answered or the connection is closed; either way everybody else is served within a second.
func TestFloodsLeaveTheOthersServedWithinASecond(t *testing.T) {
	p := product.Start(t)
	c := client(t, "v2", connect(t, p))
	if err := roundTrip(within(t), c); err != nil {
		t.Fatal(err)
	}
	block := bytes.Join([][]byte{
		{0x83, 0x86}, literal(0x04, "", "/v2.KeyManagementService/Status", true), literal(0x01, "", "%2Fx", false),
		literal(0x00, "content-type", "application/grpc", true), literal(0x00, "te", "trailers", true),
	}, nil)
	for name, act := range map[string]func(r *raw, n uint32) error{
		"settings": func(r *raw, _ uint32) error { return r.framer.WriteSettings() },
		"pings":    func(r *raw, _ uint32) error { return r.framer.WritePing(false, [8]byte{}) },
		"resets": func(r *raw, n uint32) error {
			h := http2.HeadersFrameParam{StreamID: 2*n + 1, BlockFragment: block, EndHeaders: true}
			if err := r.framer.WriteHeaders(h); err != nil {
				return err
			}
			return r.framer.WriteRSTStream(2*n+1, http2.ErrCodeCancel)
		},
		"continuations": func(r *raw, n uint32) error {
			if n == 0 {
				h := http2.HeadersFrameParam{StreamID: 1, BlockFragment: block}
				return r.framer.WriteHeaders(h)
			}
			return r.framer.WriteContinuation(1, false, literal(0x00, "x-flood", "value", false))
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := dialRaw(t, p)
			go io.Copy(io.Discard, r.connection)
			stop := make(chan struct{})
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				for n := uint32(0); ; n++ {
					select {
					case <-stop:
						return
					default:
						if act(r, n) != nil { // The server has had enough of it, as it may.
							return
						}
					}
				}
			}()
			worst := time.Duration(0)
			for begin := time.Now(); time.Since(begin) < 2*time.Second; {
				called := time.Now()
				if err := roundTrip(within(t), c); err != nil {
					t.Errorf("during the flood: %v", err)
					break
				}
				worst = max(worst, time.Since(called))
			}
			close(stop)
			r.connection.Close()
			<-ended
			t.Logf("slowest round trip during the flood: %v", worst)
			if worst > time.Second {
				t.Errorf("a round trip took %v", worst)
			}
		})
	}
}
