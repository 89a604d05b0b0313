// client URL TOKEN: asks with a bearer token, and prints the version of HTTP, the status and what came.
package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
)

func main() {
	request, err := http.NewRequest(http.MethodGet, os.Args[1], nil)
	fail(err)
	request.Header.Set("Authorization", "Bearer "+os.Args[2])
	answer, err := http.DefaultClient.Do(request)
	fail(err)
	text, err := io.ReadAll(answer.Body)
	fail(err)
	fmt.Println(answer.Proto, answer.StatusCode, string(text))
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
