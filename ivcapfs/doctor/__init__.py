"""What ``ivcapfs doctor`` looks at: this machine, the way to a deployment, and the deployment itself."""
