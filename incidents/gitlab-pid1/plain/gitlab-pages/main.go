// The client of the story: it asks for domains through one http.Client, whose Transport keeps connections. Where a new connection
// leads is decided when it is made, as by kube-proxy: to one of the endpoints that are listed then.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

var (
	endpoints = flag.String("endpoints", "", "a folder with a file for each endpoint, its address in it")
	clients   = flag.Int("clients", 24, "how many ask at the same time, each once a second")
	least     = flag.Int("least", 1, "how many endpoints have to be listed before it begins")
)

// In turn, as IPVS does it by default: so each endpoint gets its share of a few connections too.
var dials atomic.Int64

func listed() []string {
	var found []string
	files, _ := os.ReadDir(*endpoints)
	for _, file := range files {
		if strings.HasPrefix(file.Name(), ".") {
			continue
		}
		if text, err := os.ReadFile(filepath.Join(*endpoints, file.Name())); err == nil {
			found = append(found, strings.TrimSpace(string(text)))
		}
	}
	return found
}

func isListed(address string) bool {
	for _, one := range listed() {
		if one == address {
			return true
		}
	}
	return false
}

type seen struct {
	Time    string `json:"time"`
	Status  int    `json:"status"`
	Error   string `json:"error,omitempty"`
	Backend string `json:"backend"`
	Reused  bool   `json:"reused"`
	Listed  bool   `json:"listed"`
}

func main() {
	flag.Parse()
	transport := &http.Transport{
		MaxIdleConns:        100,
		MaxIdleConnsPerHost: 100,
		IdleConnTimeout:     90 * time.Second,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			all := listed()
			if len(all) == 0 {
				return nil, &net.OpError{Op: "dial", Net: network, Err: os.ErrNotExist}
			}
			return (&net.Dialer{}).DialContext(ctx, network, all[int(dials.Add(1))%len(all)])
		},
	}
	client := &http.Client{Transport: transport, Timeout: 15 * time.Second}
	var mutex sync.Mutex
	out := json.NewEncoder(os.Stdout)
	ask := func() {
		line := seen{}
		trace := &httptrace.ClientTrace{GotConn: func(got httptrace.GotConnInfo) {
			line.Backend, line.Reused = got.Conn.RemoteAddr().String(), got.Reused
		}}
		request, _ := http.NewRequestWithContext(httptrace.WithClientTrace(context.Background(), trace), http.MethodGet,
			"http://webservice:8181/api/v4/internal/pages?host=pages.example", nil)
		answer, err := client.Do(request)
		if err != nil {
			line.Error = err.Error()
		} else {
			line.Status = answer.StatusCode
			// Reading the body to its end and closing it is what gives the connection back.
			io.Copy(io.Discard, answer.Body)
			answer.Body.Close()
		}
		line.Time, line.Listed = time.Now().UTC().Format(time.RFC3339Nano), isListed(line.Backend)
		mutex.Lock()
		defer mutex.Unlock()
		out.Encode(line)
	}
	for len(listed()) < *least {
		time.Sleep(20 * time.Millisecond)
	}
	for range time.Tick(time.Second) {
		for n := 0; n < *clients; n++ {
			go ask()
		}
	}
}
