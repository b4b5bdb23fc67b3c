// A gateway as Go programs are: net/http's reverse proxy over a Transport that keeps connections to the Service. kube-proxy chooses
// a pod when a connection is made, and for it alone. Writes a line for each request that failed or took more than one connection.
package main

import (
	"encoding/json"
	"flag"
	"log"
	"net/http"
	"net/http/httptrace"
	"net/http/httputil"
	"net/url"
	"os"
	"sync"
)

var (
	listen  = flag.String("listen", "127.0.0.1:8080", "where clients come in")
	service = flag.String("service", "", "the address of the Service")
)

type line struct {
	ID          string `json:"id"`
	Error       string `json:"error,omitempty"`
	Reused      bool   `json:"reused"`
	Connections int    `json:"connections"`
}

type traced struct {
	*http.Transport
	lock sync.Mutex
	out  *json.Encoder
}

func (t *traced) RoundTrip(request *http.Request) (*http.Response, error) {
	said := line{ID: request.Header.Get("X-Request-Id")}
	trace := &httptrace.ClientTrace{GotConn: func(got httptrace.GotConnInfo) {
		said.Connections++
		said.Reused = got.Reused
	}}
	answer, err := t.Transport.RoundTrip(request.WithContext(httptrace.WithClientTrace(request.Context(), trace)))
	if err != nil {
		said.Error = err.Error()
	}
	if err != nil || said.Connections > 1 {
		t.lock.Lock()
		t.out.Encode(said)
		t.lock.Unlock()
	}
	return answer, err
}

func main() {
	flag.Parse()
	target, err := url.Parse("http://" + *service)
	if err != nil || *service == "" {
		log.Fatalf("-service %q is no address", *service)
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.Proxy = nil
	// The default of 2 would close most connections after one answer.
	transport.MaxIdleConnsPerHost = 100
	proxy := &httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(target) },
		Transport:     &traced{Transport: transport, out: json.NewEncoder(os.Stdout)},
		FlushInterval: -1,
	}
	// Else the server closes the request's body as it writes the head of the answer. Where the Transport has sent all of it, and is about to look
	// whether there is more, it takes that for a failure and closes the connection before the answer is through: one POST in ten thousand.
	handler := func(w http.ResponseWriter, r *http.Request) {
		if err := http.NewResponseController(w).EnableFullDuplex(); err != nil {
			log.Print(err)
		}
		proxy.ServeHTTP(w, r)
	}
	log.Fatal(http.ListenAndServe(*listen, http.HandlerFunc(handler)))
}
