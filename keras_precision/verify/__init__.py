"""Models and files asked for answers: evaluate scores them, benchmark times them."""
