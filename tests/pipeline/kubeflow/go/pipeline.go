package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/kubeflow/pipelines/api/v2alpha1/go/pipelinespec"
	"github.com/kubeflow/pipelines/kubernetes_platform/go/kubernetesplatform"
	"google.golang.org/protobuf/encoding/protojson"
	"gopkg.in/yaml.v3"
)

// judgedPipeline is what KFP's message types hold after reading a compiled pipeline.
type judgedPipeline struct {
	Spec json.RawMessage `json:"spec"`
	// Kubernetes settings by executor label, empty without a second document.
	Kubernetes map[string]json.RawMessage `json:"kubernetes"`
}

// judgePipeline reads one or two YAML documents: the PipelineSpec, then the PlatformSpec.
func judgePipeline(text []byte) (any, error) {
	documents, err := documentsAsJSON(text)
	if err != nil {
		return nil, err
	}
	if len(documents) < 1 || len(documents) > 2 {
		return nil, fmt.Errorf("%d YAML documents; one or two are allowed", len(documents))
	}
	judged := judgedPipeline{Kubernetes: map[string]json.RawMessage{}}
	spec := &pipelinespec.PipelineSpec{}
	if err := protojson.Unmarshal(documents[0], spec); err != nil {
		return nil, fmt.Errorf("pipeline spec: %w", err)
	}
	if judged.Spec, err = protojson.Marshal(spec); err != nil {
		return nil, err
	}
	if len(documents) == 2 {
		judged.Kubernetes, err = judgePlatform(documents[1])
	}
	return judged, err
}

// judgePlatform reads each executor's settings, which PlatformSpec holds as untyped structures, as a server does that
// is as old as the published message types: it passes over the fields that came later.
func judgePlatform(document []byte) (map[string]json.RawMessage, error) {
	platforms := &pipelinespec.PlatformSpec{}
	if err := protojson.Unmarshal(document, platforms); err != nil {
		return nil, fmt.Errorf("platform spec: %w", err)
	}
	kubernetes := platforms.GetPlatforms()["kubernetes"]
	if kubernetes == nil {
		return nil, errors.New("platform spec: no platform named kubernetes")
	}
	judged := map[string]json.RawMessage{}
	for label, settings := range kubernetes.GetDeploymentSpec().GetExecutors() {
		plain, err := protojson.Marshal(settings)
		if err != nil {
			return nil, err
		}
		config := &kubernetesplatform.KubernetesExecutorConfig{}
		if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(plain, config); err != nil {
			return nil, fmt.Errorf("platform spec: executor %s: %w", label, err)
		}
		if judged[label], err = protojson.Marshal(config); err != nil {
			return nil, err
		}
	}
	return judged, nil
}

// documentsAsJSON splits YAML with the library that the KFP server uses.
func documentsAsJSON(text []byte) ([][]byte, error) {
	var documents [][]byte
	for decoder := yaml.NewDecoder(bytes.NewReader(text)); ; {
		var value map[string]any
		switch err := decoder.Decode(&value); {
		case errors.Is(err, io.EOF):
			return documents, nil
		case err != nil:
			return nil, err
		case value == nil:
			continue
		}
		document, err := json.Marshal(value)
		if err != nil {
			return nil, err
		}
		documents = append(documents, document)
	}
}
