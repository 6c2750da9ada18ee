// Android Gradle plugin 8.10 needs Gradle 8.11.1 or later and a JDK 17 or later.
plugins {
    id("com.android.application") version "8.10.1" apply false
    id("org.jetbrains.kotlin.android") version "2.1.21" apply false
}
