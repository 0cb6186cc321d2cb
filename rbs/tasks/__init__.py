"""The LightningModules: pretraining and adapting the teacher, and training the restorers."""
