package main

import (
	"fmt"

	trainingoperator "github.com/kubeflow/training-operator/pkg/apis/kubeflow.org/v1"
	"sigs.k8s.io/yaml"
)

// judgeTFJob reads a manifest and fills in the operator's defaults.
func judgeTFJob(text []byte) (any, error) {
	job := &trainingoperator.TFJob{}
	if err := yaml.UnmarshalStrict(text, job); err != nil {
		return nil, err
	}
	if kind := job.GroupVersionKind(); kind != trainingoperator.GroupVersion.WithKind(trainingoperator.TFJobKind) {
		return nil, fmt.Errorf("%s is not a TFJob of %s", kind, trainingoperator.GroupVersion)
	}
	trainingoperator.SetDefaults_TFJob(job)
	return job, nil
}
