// net/http with the documented graceful shutdown, HTTP/2 without TLS, and WebSocket echo by Hijack: a hijacked connection is
// none that Shutdown waits for.
package main

import (
	"bufio"
	"context"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

func frame(opcode byte, payload []byte) []byte {
	head := []byte{0x80 | opcode, byte(len(payload))}
	if len(payload) > 125 {
		head = binary.BigEndian.AppendUint16([]byte{0x80 | opcode, 126}, uint16(len(payload)))
	}
	return append(head, payload...)
}

func echo(conn net.Conn, buffered *bufio.ReadWriter) {
	defer conn.Close()
	for {
		head := make([]byte, 2)
		if _, err := io.ReadFull(buffered, head); err != nil {
			return
		}
		length := int(head[1] & 0x7f)
		if length == 126 {
			var long uint16
			if binary.Read(buffered, binary.BigEndian, &long) != nil {
				return
			}
			length = int(long)
		}
		rest := make([]byte, 4+length)
		if _, err := io.ReadFull(buffered, rest); err != nil {
			return
		}
		payload := rest[4:]
		for n := range payload {
			payload[n] ^= rest[n&3]
		}
		opcode := head[0] & 0x0f
		switch opcode {
		case 9:
			conn.Write(frame(10, payload))
		case 10:
		default:
			conn.Write(frame(opcode, payload))
		}
		if opcode == 8 {
			return
		}
	}
}

func upgrade(w http.ResponseWriter, r *http.Request) {
	conn, buffered, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	key := sha1.Sum([]byte(r.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Accept: %s\r\n\r\n", base64.StdEncoding.EncodeToString(key[:]))
	go echo(conn, buffered)
}

func main() {
	handler := func(w http.ResponseWriter, r *http.Request) {
		os.Stdout.WriteString(r.Header.Get("X-Request-Id") + "\n")
		if strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
			upgrade(w, r)
			return
		}
		bytes, _ := io.Copy(io.Discard, r.Body)
		switch r.URL.Path {
		case "/slow":
			time.Sleep(200 * time.Millisecond)
		case "/stream":
			for range 10 {
				fmt.Fprintln(w, "a piece")
				w.(http.Flusher).Flush()
				time.Sleep(100 * time.Millisecond)
			}
			return
		}
		fmt.Fprintf(w, "%d bytes\n", bytes)
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{
		Addr: "127.0.0.1:" + os.Getenv("PORT"), Handler: http.HandlerFunc(handler), Protocols: protocols,
	}
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
