"""What the policy is compared with or learns from: references and teachers, and their values that are kept."""
