// Command judge reads what this project writes for a cluster with the published types of those who receive it.
//
//	judge pipeline FILE   the compiled pipeline, with the message types of Kubeflow Pipelines
//	judge tfjob FILE      a TFJob manifest, with the API types and defaults of the Training Operator
//
// Unknown fields, wrong types and unknown enum values are errors, but for the platform document (judgePlatform). What
// was understood is printed as JSON. The exit status is 1 for a file that is refused and 2 for a wrong call.
package main

import (
	"encoding/json"
	"fmt"
	"os"
)

func main() {
	judges := map[string]func([]byte) (any, error){"pipeline": judgePipeline, "tfjob": judgeTFJob}
	if len(os.Args) != 3 || judges[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: judge pipeline|tfjob FILE")
		os.Exit(2)
	}
	if err := run(judges[os.Args[1]], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(judge func([]byte) (any, error), path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	understood, err := judge(text)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return json.NewEncoder(os.Stdout).Encode(understood)
}
