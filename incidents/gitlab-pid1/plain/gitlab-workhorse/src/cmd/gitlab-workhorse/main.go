// A proxy of the kind that stands in front of a Rails application: it passes requests on, holds the long polls of job runners
// itself, and answers 502 where the application can not be reached. On TERM it shuts down in good order, if TERM reaches it.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"io"
	"math/rand"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

var (
	logFile     = flag.String("logFile", "stdout", "where log lines go")
	logFormat   = flag.String("logFormat", "json", "json")
	listenAddr  = flag.String("listenAddr", "0.0.0.0:8181", "where to listen")
	authBackend = flag.String("authBackend", "http://127.0.0.1:8080", "the application")
)

// A line of the log; the time is the last of its fields, as logrus has it.
var (
	logMutex sync.Mutex
	logTo    io.Writer = os.Stdout
)

func say(fields map[string]any) {
	fields["time"] = time.Now().UTC().Format("2006-01-02T15:04:05.000Z")
	line, _ := json.Marshal(fields)
	logMutex.Lock()
	defer logMutex.Unlock()
	logTo.Write(append(line, '\n'))
}

func duration(name string, otherwise time.Duration) time.Duration {
	if given, err := time.ParseDuration(os.Getenv(name)); err == nil {
		return given
	}
	return otherwise
}

// What one request has in all its lines.
func about(r *http.Request, began time.Time) map[string]any {
	return map[string]any{
		"correlation_id": r.Header.Get("X-Request-Id"),
		"duration_ms":    time.Since(began).Milliseconds(),
		"method":         r.Method,
		"uri":            r.URL.RequestURI(),
	}
}

type recorder struct {
	http.ResponseWriter
	status int
}

func (r *recorder) WriteHeader(status int) {
	r.status = status
	r.ResponseWriter.WriteHeader(status)
}

// An answer that nobody reads.
type discard struct{ header http.Header }

func (d discard) Header() http.Header         { return d.header }
func (d discard) Write(b []byte) (int, error) { return len(b), nil }
func (d discard) WriteHeader(int)             {}

func main() {
	flag.Parse()
	if *logFile != "stdout" {
		if file, err := os.OpenFile(*logFile, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644); err == nil {
			logTo = file
		}
	}
	backend, err := url.Parse(*authBackend)
	if err != nil {
		say(map[string]any{"level": "fatal", "msg": "authBackend", "error": err.Error()})
		os.Exit(1)
	}
	shutdownTimeout := duration("WORKHORSE_SHUTDOWN_TIMEOUT", 61*time.Second)
	polling := duration("WORKHORSE_CI_LONG_POLLING", 50*time.Second)
	stopping := make(chan struct{})

	proxy := httputil.NewSingleHostReverseProxy(backend)
	proxy.Transport = &http.Transport{MaxIdleConnsPerHost: 100, IdleConnTimeout: 4 * time.Second}
	proxy.ErrorHandler = func(w http.ResponseWriter, r *http.Request, err error) {
		fields := about(r, time.Now())
		fields["level"] = "error"
		fields["msg"] = ""
		fields["error"] = "badgateway: failed to receive response: " + err.Error()
		say(fields)
		w.Header().Set("Content-Type", "text/plain")
		w.WriteHeader(http.StatusBadGateway)
		io.WriteString(w, "GitLab is not responding\n")
	}

	mux := http.NewServeMux()
	// A runner asks for a job and waits; nothing of it reaches the application before there is one.
	mux.HandleFunc("/api/v4/jobs/request", func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		select {
		case <-time.After(polling):
		case <-stopping:
		case <-r.Context().Done():
		}
		w.WriteHeader(http.StatusNoContent)
	})
	// Git is run here, once the application allows it. The helper leaves a process behind, as git does for its maintenance:
	// whoever is PID 1 inherits it.
	mux.HandleFunc("/group/project.git/info/refs", func(w http.ResponseWriter, r *http.Request) {
		asked := r.Clone(r.Context())
		asked.URL.Path, asked.URL.RawQuery = "/api/v4/internal/pages", ""
		allowed := &recorder{ResponseWriter: discard{http.Header{}}, status: http.StatusOK}
		began := time.Now()
		proxy.ServeHTTP(allowed, asked)
		if allowed.status != http.StatusOK {
			w.WriteHeader(allowed.status)
			return
		}
		refs, err := exec.Command("/bin/sh", "-c", "sleep 0.1 >/dev/null & echo refs").Output()
		if err != nil {
			fields := about(r, began)
			fields["level"], fields["msg"], fields["error"] = "error", "", "git: "+err.Error()
			say(fields)
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		w.Write(refs)
	})
	mux.Handle("/", proxy)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began := time.Now()
		if r.Header.Get("X-Request-Id") == "" {
			r.Header.Set("X-Request-Id", strconv.FormatUint(rand.Uint64(), 36))
		}
		answer := &recorder{ResponseWriter: w, status: http.StatusOK}
		mux.ServeHTTP(answer, r)
		fields := about(r, began)
		fields["level"] = "info"
		fields["msg"] = "access"
		fields["status"] = answer.status
		fields["host"] = r.Host
		fields["remote_ip"] = strings.Split(r.RemoteAddr, ":")[0]
		fields["system"] = "http"
		say(fields)
	})}

	listener, err := net.Listen("tcp", *listenAddr)
	if err != nil {
		say(map[string]any{"level": "fatal", "msg": "listen", "error": err.Error()})
		os.Exit(1)
	}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	told := make(chan os.Signal, 1)
	signal.Notify(told, syscall.SIGINT, syscall.SIGTERM)
	select {
	case err = <-failed:
	case sign := <-told:
		say(map[string]any{
			"level": "info", "msg": "shutdown initiated", "shutdown_timeout_s": shutdownTimeout.Seconds(), "signal": sign.String(),
		})
		say(map[string]any{"level": "info", "msg": "keywatcher: shutting down"})
		close(stopping)
		within, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
		defer cancel()
		err = server.Shutdown(within)
	}
	say(map[string]any{"level": "fatal", "msg": "shutting down", "error": err})
	os.Exit(1)
}
