"""The parameters of each flow, shared by its form in the Prefect UI and its command."""
