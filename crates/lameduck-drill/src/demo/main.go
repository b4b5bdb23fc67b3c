// The service of `lameduck demo --app go`: net/http with the documented graceful shutdown.
package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"
)

func main() {
	handler := func(w http.ResponseWriter, r *http.Request) {
		os.Stdout.WriteString(r.Header.Get("X-Request-Id") + "\n")
		bytes, _ := io.Copy(io.Discard, r.Body)
		if r.URL.Path == "/slow" {
			ms, _ := strconv.Atoi(r.URL.Query().Get("ms"))
			time.Sleep(time.Duration(ms) * time.Millisecond)
		}
		fmt.Fprintf(w, "%d bytes\n", bytes)
	}
	server := &http.Server{Addr: ":" + os.Getenv("PORT"), Handler: http.HandlerFunc(handler)}
	stop, _ := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	go func() {
		if err := server.ListenAndServe(); err != http.ErrServerClosed {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}()
	<-stop.Done()
	server.Shutdown(context.Background())
}
