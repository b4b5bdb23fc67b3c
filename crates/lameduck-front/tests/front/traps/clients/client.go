// Four workers, GET and POST in turns, over the connections that a transport keeps.
package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

func main() {
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 4, MaxConnsPerHost: 4}}
	var sent, failed atomic.Int64
	var over atomic.Bool
	var all sync.WaitGroup
	for worker := range 4 {
		all.Add(1)
		go func() {
			defer all.Done()
			for n := 0; !over.Load(); n++ {
				method, body := "GET", io.Reader(nil)
				if n%2 == 1 {
					method, body = "POST", strings.NewReader("body")
				}
				request, _ := http.NewRequest(method, fmt.Sprintf("%s/g%d-%d", os.Args[1], worker, n), body)
				sent.Add(1)
				answer, err := client.Do(request)
				if err != nil {
					fmt.Println(err)
					failed.Add(1)
				} else {
					if _, err := io.Copy(io.Discard, answer.Body); err != nil || answer.StatusCode != 200 {
						fmt.Println(answer.Status, err)
						failed.Add(1)
					}
					answer.Body.Close()
				}
				time.Sleep(5 * time.Millisecond)
			}
		}()
	}
	io.Copy(io.Discard, os.Stdin)
	over.Store(true)
	all.Wait()
	fmt.Printf("told %d %d\n", sent.Load(), failed.Load())
}
