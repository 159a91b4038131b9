"""python -m anacrusis"""

from .cli import main

main()
